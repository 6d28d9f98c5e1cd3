"""Rungs of the uplift ladder from a language model: item knowledge (3), intents (4), intents of the aligned model (5), and their controls.

Each rung builds on text match and is compared with it, so that its gain is its own. Its cost is shown beside the gain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from taiji.core.errors import InputError
from taiji.data.dataset import Dataset
from taiji.data.fields import NumbersField, Rows
from taiji.data.intent_rows import INTENTS
from taiji.experiments.uplift_rungs import Rung
from taiji.experiments.uplift_trial import REFRESHES, Trial
from taiji.features.feature_table import join_features
from taiji.features.student import IntentStudent, StudentSettings
from taiji.models.ranking.intent_match import IntentMatch
from taiji.models.ranking.item_knowledge_match import ItemKnowledge

Array = NDArray[Any]
COLUMNS = ("user", "as_of", "available_at", *INTENTS)
"""Columns of a table of intents."""
USERS, COMPLETIONS = "users.parquet", "completions.parquet"
NEAR = 50
"""The control draws the intents of another user from this many rows before a row, in the order of their times."""


class ShuffledKnowledge(ItemKnowledge):
    """Negative control: every item with a text gets the text of another one."""

    def embed(self, dataset: Dataset, items: Array) -> Array:
        """Return the vectors of other items' texts."""
        every = np.arange(dataset.n_items)
        found = super().embed(dataset, every)
        told = np.flatnonzero(found.any(axis=1))
        found[told] = found[np.random.default_rng(0).permutation(told)]
        return found[items]


@dataclass(frozen=True)
class Knowledge:
    """Factory of the field of item knowledge from a table.

    Attributes:
        table: table with the columns of :data:`taiji.data.knowledge_rows.NEEDED`.
        embedder: name of the embedder.
        kind: class of the field; a control is a class of its own.
    """

    table: pl.DataFrame
    embedder: str
    kind: type[ItemKnowledge] = ItemKnowledge

    def __call__(self, trial: Trial) -> list[NumbersField]:
        """Return the field."""
        field = self.kind(embedder=self.embedder, refreshes=REFRESHES)
        field.take(self.table)
        return [field]


class TabledIntents(NumbersField):
    """Agreement with the intents that a row's user had at the time.

    Args:
        table: table with the columns of :data:`COLUMNS`.
        name: name of the field.
    """

    def __init__(self, table: pl.DataFrame, name: str = "intents") -> None:
        super().__init__(name, "pair")
        self.table, self.match = table, IntentMatch(name=name)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the values."""
        return self.match.labels

    def _joined(self, rows: pl.DataFrame) -> pl.DataFrame:
        return join_features(rows, self.table, tuple(INTENTS)).drop("feature_as_of")

    def fit(self, dataset: Dataset, rows: pl.DataFrame, until: int) -> None:
        """Fit :class:`taiji.models.ranking.intent_match.IntentMatch` on rows with their intents."""
        self.match.fit(dataset, self._joined(rows), until)

    def matrix(self, rows: Rows) -> Array:
        """Return the agreement."""
        return self.match.matrix(Rows(rows.dataset, self._joined(rows.frame)))


@dataclass(frozen=True)
class Intents:
    """Factory of the field of intents from a table.

    Attributes:
        table: table with the columns of :data:`COLUMNS`.
        another: negative control in which every row gets another user's intents.
    """

    table: pl.DataFrame
    another: bool = False

    def __call__(self, trial: Trial) -> list[NumbersField]:
        """Return the field."""
        return [TabledIntents(of_others(self.table) if self.another else self.table)]


@dataclass(frozen=True)
class Told:
    """Mask of the rows whose user had intents at the time.

    Attributes:
        table: table with the columns of :data:`COLUMNS`.
    """

    table: pl.DataFrame

    def __call__(self, trial: Trial, rows: pl.DataFrame) -> Array:
        """Return the mask, (N,)."""
        return join_features(rows, self.table, ("intent_weights",))["intent_weights"].is_not_null().to_numpy()


def of_others(table: pl.DataFrame) -> pl.DataFrame:
    """Return a table in which every row has another user's intents.

    They come from a random one of the :data:`NEAR` rows before or, if none of these belongs to another user, from the first row that does. Users and times are
    unchanged, so that the control has information about exactly the same rows.

    Returns:
        the table in the order of its times; empty if there is only one user.
    """
    table = table.sort("as_of", "user")
    users, random = table["user"].to_numpy(), np.random.default_rng(0)
    if len(np.unique(users)) < 2:
        return table.head(0)
    donors = np.empty(len(users), np.int64)
    for row, user in enumerate(users):
        before = np.flatnonzero(users[max(0, row - NEAR) : row] != user) + max(0, row - NEAR)
        others = before if len(before) else np.flatnonzero(users != user)[:1]
        donors[row] = random.choice(others)
    return table.with_columns(table[name].gather(donors.tolist()) for name in INTENTS)


def read_intents(path: str | Path, dataset: Dataset) -> pl.DataFrame:
    """Read rows of intents with the user ids of a dataset.

    Args:
        path: ``taiji.parquet`` of a run's stage ``features`` (or of one of its variants, those of a study among them),
            or a file of ``taiji export``.
        dataset: a dataset with the same ``user_id`` values.

    Returns:
        the columns :data:`COLUMNS` of the dataset's users with intents.

    Raises:
        InputError: the file has no intents, or none of a user in the dataset.
    """
    path = Path(path).expanduser()
    table = pl.read_parquet(path)
    names = next(filter(Path.is_file, (folder / "data" / "dataset" / USERS for folder in path.resolve().parents)), None)
    if "user_id" in table.columns:
        table = table.drop("user", strict=False).with_columns(pl.col("user_id").cast(pl.String))
    elif names is not None:
        ids = pl.read_parquet(names, columns=["user", "user_id"])
        table = table.join(ids.with_columns(pl.col("user_id").cast(pl.String)), on="user", how="left").drop("user")
    if "event_timestamp" in table.columns:
        times = pl.col("event_timestamp", "as_of").dt.cast_time_unit("us").cast(pl.Int64)
        table = table.with_columns(times).rename({"event_timestamp": "available_at"})
    missing = [name for name in ("user_id", *COLUMNS[1:]) if name not in table.columns]
    own = dataset.users.select(pl.col("user_id").cast(pl.String), pl.col("user").cast(pl.Int64))
    kept = table.join(own, on="user_id", how="inner", maintain_order="left") if not missing else table.head(0)
    if not len(kept):
        raise InputError(
            "There are no rows of intents for this log.",
            where=str(path),
            expected=f"columns user_id (or the run's dataset next to the file), {', '.join(COLUMNS[1:])}, for users of this log",
            found=f"no {', '.join(missing)}" if missing else f"{len(table)} rows of other users",
            fix="compute the features with reasoning.prompts.answer: set, from the same log",
        )
    return kept.filter(pl.col("intent_weights").list.len() > 0).select(COLUMNS)


def tokens_per_item(table: pl.DataFrame) -> dict[str, float]:
    """Return ``tokens_per_item``, read and written, of a table of item knowledge; empty if it is not recorded."""
    return _tokens_per(table, "item")


def tokens_per_row(path: str | Path) -> dict[str, float]:
    """Return ``tokens_per_user``, read and written per row of a user, from the answers next to a feature table;
    empty if not recorded."""
    file = Path(path).expanduser().parent / COMPLETIONS
    return _tokens_per(pl.read_parquet(file) if file.is_file() else pl.DataFrame(), "user")


def _tokens_per(table: pl.DataFrame, unit: str) -> dict[str, float]:
    counted = [name for name in ("prompt_tokens", "completion_tokens") if name in table.columns]
    return {f"tokens_per_{unit}": float(sum(table[name].sum() for name in counted)) / len(table)} if counted else {}


def knowledge_rungs(table: pl.DataFrame, embedder: str, against: str) -> list[Rung]:
    """Return rung 3 and its control, both compared with the rung below."""
    name, cost = f"3 item knowledge, {embedder}", tokens_per_item(table)
    return [
        Rung(name, Knowledge(table, embedder), against, True, True, cost),
        Rung(f"{name}: control, shuffled", Knowledge(table, embedder, ShuffledKnowledge), against, True, True),
    ]


def intent_rungs(name: str, table: pl.DataFrame, against: str, cost: Mapping[str, float]) -> list[Rung]:
    """Return a rung of intents and its control, both compared with the rung below."""
    return [
        Rung(name, Intents(table), against, True, True, cost, Told(table)),
        Rung(f"{name}: control, another user's", Intents(table, True), against, True, True, covers=Told(table)),
    ]


class StudentIntents(NumbersField):
    """Agreement with the intents of a student trained on a table; every row with a history has some.

    Args:
        table: table with the columns of :data:`COLUMNS`.
        settings: settings of the student.
        name: name of the field.
    """

    def __init__(self, table: pl.DataFrame, settings: StudentSettings | None = None, name: str = "intents") -> None:
        super().__init__(name, "pair")
        self.table, self.match, self.student = table, IntentMatch(name=name), IntentStudent(settings)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the values."""
        return self.match.labels

    def _told(self, dataset: Dataset, rows: pl.DataFrame) -> pl.DataFrame:
        asked = rows.select("user", "time").unique(maintain_order=True)
        said = self.student.write(dataset, asked["user"].to_numpy(), asked["time"].to_numpy())
        return rows.join(
            pl.concat([asked, said], how="horizontal"), on=["user", "time"], how="left", maintain_order="left"
        )

    def fit(self, dataset: Dataset, rows: pl.DataFrame, until: int) -> None:
        """Train the student on the rows readable before the test period, and fit the agreement on its intents."""
        self.student.fit(dataset, self.table.filter(pl.col("available_at") < until))
        self.match.fit(dataset, self._told(dataset, rows), until)

    def matrix(self, rows: Rows) -> Array:
        """Return the agreement."""
        return self.match.matrix(Rows(rows.dataset, self._told(rows.dataset, rows.frame)))


def student_rungs(table: pl.DataFrame, against: str) -> list[Rung]:
    """Return the arm of the student, which costs no tokens beyond those of its training rows.

    It covers every row; the stratum of the language model's rows is there so that the two can be compared on equal terms.
    """
    free = {"tokens_per_user": 0.0}
    return [Rung("4 intents, student", lambda trial: [StudentIntents(table)], against, True, True, free, Told(table))]
