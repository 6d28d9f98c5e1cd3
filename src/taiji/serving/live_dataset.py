"""A run's data set seen through text ids, and small data sets made of some users' newest state.

The other packages work on a :class:`~taiji.data.dataset.Dataset`. Online, what is known about a user is the run's log plus
the events that came since; for a batch of users that is put together as a data set of its own, with its own dense user
ids, so that prompts and rankers read it like any other and there is one way to make each.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from taiji.core.advice import resume_command
from taiji.core.artifacts import read_json
from taiji.core.errors import ArtifactError
from taiji.core.manifests import Verifier
from taiji.data.dataset import Dataset
from taiji.serving.types import UserHistory


class World:
    """The data set of a run directory, its configuration, and the way from text ids to dense ones."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.config: dict[str, Any] = read_json(run / "config.json")
        self.dataset = Dataset.load(run / "data" / "dataset")

    @cached_property
    def users(self) -> dict[str, int]:
        """Dense id of each user's text id."""
        return {str(name): number for number, name in enumerate(self.dataset.users["user_id"])}

    @cached_property
    def items(self) -> dict[str, int]:
        """Dense id of each item's text id."""
        return {str(name): number for number, name in enumerate(self.dataset.items["item_id"])}

    @cached_property
    def item_names(self) -> list[str]:
        """Text id of each item."""
        return list(self.items)

    def known(self, history: UserHistory) -> int | None:
        """The user's dense id in the run, None for a new user and for one who was erased."""
        return None if history.forgotten else self.users.get(history.user)

    def interactions(self, history: UserHistory) -> tuple[np.ndarray, np.ndarray]:
        """All clicks of a user before ``as_of``, the run's and those that came since: dense items and times, oldest first.

        Items that are not in the catalogue are left out; an event that is in the run's log as well counts once.
        """
        number = self.known(history)
        items, times = (
            (np.zeros(0, np.int64),) * 2 if number is None else self.dataset.history.before(number, history.as_of)
        )
        pairs = list(zip(times[::-1].tolist(), items[::-1].tolist()))
        logged = set(pairs)
        since = [
            (event.time, self.items[event.item])
            for event in history.events
            if event.click and event.time < history.as_of and event.item in self.items
        ]
        pairs += [pair for pair in since if pair not in logged]
        ordered = sorted(pairs, key=lambda pair: pair[0])  # stable: ties stay in the order of arrival
        return np.array([item for _, item in ordered], np.int64), np.array([time for time, _ in ordered], np.int64)

    def of(self, histories: Sequence[UserHistory]) -> Dataset:
        """A data set in which user ``i`` is ``histories[i]``: the run's items and profiles, and all interactions."""
        numbers = [self.known(history) for history in histories]
        profiles = self.dataset.users[[number or 0 for number in numbers]]
        known = pl.Series([number is not None for number in numbers], dtype=pl.Boolean)
        users = profiles.with_columns(pl.when(known).then(pl.col(name)) for name in profiles.columns[2:])
        users = users.with_columns(
            user=pl.Series(range(len(histories)), dtype=pl.UInt32),
            user_id=pl.Series([history.user for history in histories]),
        )
        parts = [self.interactions(history) for history in histories]
        user = np.repeat(np.arange(len(parts)), [len(items) for items, _ in parts])
        item, time = (
            np.concatenate([part[place] for part in parts]) if parts else np.zeros(0, np.int64) for place in (0, 1)
        )
        order = np.lexsort((user, time))
        return self.dataset.with_users(users, _events(user[order], item[order], time[order]))


def _events(user: np.ndarray, item: np.ndarray, time: np.ndarray) -> pl.DataFrame:
    """Interactions as rows of a data set's events: history only, never an exposure."""
    frame = pl.DataFrame(
        {"user": user, "item": item, "time": time}, schema={"user": pl.UInt32, "item": pl.UInt32, "time": pl.Int64}
    )
    return frame.with_row_index("event").with_columns(
        exposed=pl.lit(False),
        click=pl.lit(1, pl.Int8),
        conversion=pl.lit(None, pl.Int8),
        matured_at=pl.lit(None, pl.Int64),
        price=pl.lit(None, pl.Float64),
    )


def read_features(run: Path) -> pl.DataFrame:
    """The run's feature table.

    Raises:
        ArtifactError: the stage is not finished, or made rows of several versions.
    """
    path = run / "features" / "taiji.parquet"
    if not path.exists():
        raise ArtifactError(
            "The run has no features to serve.",
            where=str(path),
            fix=f"{resume_command(run)} finishes it",
        )
    Verifier().demand_whole(run, ("data", "features"))
    table = pl.read_parquet(path)
    if table.select("model_version", "quantizer_version").n_unique() != 1:
        raise ArtifactError(
            "The feature table is not of one version.",
            where=str(path),
            found=f"{table.select('model_version', 'quantizer_version').n_unique()} versions",
        )
    if "available_at" not in table.columns:  # of a run that noted one time only
        table = table.with_columns(available_at="as_of")
    return table
