"""Dataset of a run with text ids, and small datasets with the newest data of a few users.

The other packages work on a :class:`~taiji.data.dataset.Dataset`. Online, a user's data consist of the run's log and
the later events in the store. The data of a batch of users are assembled into a separate dataset with its own dense
user ids, so that the same code makes prompts and rankings online and offline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from taiji.core.advice import resume_command
from taiji.core.artifacts import read_json
from taiji.core.errors import ArtifactError
from taiji.core.manifests import Verifier
from taiji.data.history import History
from taiji.data.statistics import Statistics
from taiji.data.stored import open_dataset
from taiji.data.user_subset import NEW, UserSubset
from taiji.serving.run_statistics import run_statistics
from taiji.serving.types import ContextValue, UserHistory

LAST_WHOLE = 2**62
"""Exclusive upper bound of integers in a request's context."""


class World:
    """Dataset of a run directory, with its configuration and the mapping from text ids to dense ids."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.config: dict[str, Any] = read_json(run / "config.json")
        self.dataset = open_dataset(run / "data" / "dataset")

    @cached_property
    def statistics(self) -> Statistics:
        """Statistics of the run's log."""
        return run_statistics(self.run, self.dataset)

    @cached_property
    def users(self) -> dict[str, int]:
        """Dense user id by text id."""
        return {str(name): number for number, name in enumerate(self.dataset.users["user_id"])}

    @cached_property
    def items(self) -> dict[str, int]:
        """Dense item id by text id."""
        return {str(name): number for number, name in enumerate(self.dataset.items["item_id"])}

    @cached_property
    def item_names(self) -> list[str]:
        """Text id of each item, in the order of the dense ids."""
        return list(self.items)

    @cached_property
    def context(self) -> dict[str, pl.DataType]:
        """Context columns that a request may contain: those of the log, with their types."""
        schema = self.dataset.event_schema
        return {name: schema[name] for name in self.dataset.context if name in schema}

    def wrong_context(self, context: Mapping[str, ContextValue]) -> dict[str, str]:
        """Return the columns of a request's context that do not fit the log, each with the reason."""
        found = {}
        for name, value in context.items():
            if name not in self.context:
                found[name] = f"{name} is not a context column of the log ({', '.join(self.context) or 'it has none'})"
            elif value is not None and not _fits(value, self.context[name]):
                found[name] = f"{name} must be of type {self.context[name]}"
        return found

    def context_frame(self, contexts: Sequence[Mapping[str, ContextValue]]) -> pl.DataFrame:
        """Return the context columns of requests in the types of the log, one row per request; null if missing."""
        return pl.DataFrame(
            {
                name: pl.Series(
                    [_whole(context.get(name)) if kind.is_integer() else context.get(name) for context in contexts],
                    strict=False,
                ).cast(kind)
                for name, kind in self.context.items()
            }
        )

    def known(self, history: UserHistory) -> int | None:
        """Return the user's dense id in the run; None for new and for erased users."""
        return None if history.forgotten else self.users.get(history.user)

    def has_user(self, history: UserHistory) -> bool:
        """Return whether the run's data contain the user; False for an erased user."""
        return self.known(history) is not None

    def interactions(self, history: UserHistory) -> tuple[np.ndarray, np.ndarray]:
        """Return the items (dense ids) and times of a user's clicks before ``as_of``, (N,) each, oldest first.

        The clicks come from the run's log and the later events in the store. A click that is in both counts once. Items
        that are not in the catalogue are left out.
        """
        number = self.known(history)
        items, times = (
            (np.zeros(0, np.int64),) * 2 if number is None else self.dataset.history.before(number, history.as_of)
        )
        items, times = items[::-1], times[::-1]
        if not history.events:
            return items, times
        pairs = list(zip(times.tolist(), items.tolist()))
        logged = set(pairs)
        since = [
            (event.time, self.items[event.item])
            for event in history.events
            if event.click and event.time < history.as_of and event.item in self.items
        ]
        pairs += [pair for pair in since if pair not in logged]
        ordered = sorted(pairs, key=lambda pair: pair[0])  # stable: ties keep the order of arrival
        return np.array([item for _, item in ordered], np.int64), np.array([time for time, _ in ordered], np.int64)

    def of(self, histories: Sequence[UserHistory]) -> UserSubset:
        """Return a dataset whose user ``i`` has the history ``histories[i]``, with the run's items and profiles."""
        numbers = [self.known(history) for history in histories]
        parts = [self.interactions(history) for history in histories]
        offsets = np.zeros(len(parts) + 1, np.int64)
        np.cumsum([len(items) for items, _ in parts], out=offsets[1:])
        items, times = (
            np.concatenate([part[place] for part in parts]) if parts else np.zeros(0, np.int64) for place in (0, 1)
        )
        known = np.array([NEW if number is None else number for number in numbers], np.int64)
        return UserSubset(self.dataset, known, [history.user for history in histories], History(offsets, items, times))


def _fits(value: str | int | float | bool, kind: pl.DataType) -> bool:
    """Return whether a value of a request fits a column of the log without conversion."""
    if isinstance(value, bool) or kind == pl.Boolean:
        return isinstance(value, bool) and kind == pl.Boolean
    if isinstance(value, str):
        return kind in (pl.String, pl.Categorical, pl.Enum)
    if kind.is_integer():
        whole = abs(value) < LAST_WHOLE and float(value).is_integer()
        return whole and pl.Series([int(value)]).cast(kind, strict=False).null_count() == 0
    return kind.is_numeric()


def read_features(run: Path) -> pl.DataFrame:
    """Return the run's feature table.

    Raises:
        ArtifactError: the stage is not finished, or its table cannot be read, is empty, lacks columns or has rows of
            several versions.
    """
    path = run / "features" / "taiji.parquet"
    if not path.exists():
        raise ArtifactError(
            "The run has no features to serve.",
            where=str(path),
            fix=f"finish it with {resume_command(run)}",
        )
    Verifier().demand_whole(run, ("data", "features"))
    try:
        table = pl.read_parquet(path)
        missing = {"user", "as_of", "ids", "model_version", "quantizer_version"} - set(table.columns)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise ArtifactError(
            "The run's feature table cannot be read.",
            where=str(path),
            expected="a Parquet file written by the stage features",
            found=str(error).splitlines()[0][:200],
            fix=f"rebuild it: taiji run --name {run.name} --force features",
        ) from error
    if missing or table.is_empty():
        raise ArtifactError(
            "The run's feature table contains no rows that can be served.",
            where=str(path),
            found=f"{len(table)} rows" + (f", without the columns {', '.join(sorted(missing))}" if missing else ""),
            fix=f"rebuild it: taiji run --name {run.name} --force features",
        )
    if table.select("model_version", "quantizer_version").n_unique() != 1:
        raise ArtifactError(
            "The feature table has rows of several versions.",
            where=str(path),
            found=f"{table.select('model_version', 'quantizer_version').n_unique()} versions",
        )
    if "available_at" not in table.columns:  # a table of an older run, which stored only one time
        table = table.with_columns(available_at="as_of")
    return table


def _whole(value: ContextValue) -> ContextValue:
    """Return a whole float as an integer, so that it does not turn the integers of other requests into floats."""
    return int(value) if isinstance(value, float) else value
