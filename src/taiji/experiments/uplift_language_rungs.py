"""Rungs of the uplift ladder that use a language model: item knowledge (rung 3), intents (rung 4), intents of the
aligned model (rung 5), and controls.

Each rung adds its fields to those of text match, or of the rung before text match if text does not pay off. It is
compared with the same fields without its own, so the gain is due to its own fields alone. The cost in tokens is shown
beside the gain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from taiji.core.component import NO_ITEM
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
"""Number of preceding rows, in time order, from which the control draws the intents of another user."""


class ShuffledKnowledge(ItemKnowledge):
    """Negative control: the texts are permuted at random among the items that have one."""

    def embed(self, dataset: Dataset, items: Array) -> Array:
        """Return the vectors of the permuted texts."""
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
    """Agreement of a candidate with its user's intents. The intents come from the user's latest table row that was
    available before the time of the candidate.

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
        another: True for the negative control, in which every row gets another user's intents.
    """

    table: pl.DataFrame
    another: bool = False

    def __call__(self, trial: Trial) -> list[NumbersField]:
        """Return the field."""
        return [TabledIntents(of_others(self.table) if self.another else self.table)]


@dataclass(frozen=True)
class Told:
    """Function that returns a mask of the rows whose user had intents available before the row's time.

    Attributes:
        table: table with the columns of :data:`COLUMNS`.
    """

    table: pl.DataFrame

    def __call__(self, trial: Trial, rows: pl.DataFrame) -> Array:
        """Return the mask, (N,)."""
        return join_features(rows, self.table, ("intent_weights",))["intent_weights"].is_not_null().to_numpy()


def of_others(table: pl.DataFrame) -> pl.DataFrame:
    """Return a table in which every row has another user's intents.

    The intents of each row come from a random row of another user among the :data:`NEAR` rows before it. If there is
    none, they come from the first row of another user. Users and times are unchanged, so that the control has
    information about exactly the same rows.

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
    """Read a table of intents, and convert its users to the dense user ids of a dataset.

    Args:
        path: ``taiji.parquet`` of a run's stage ``features`` (or of a variant of this stage, such as a study makes), or
            a file of :func:`taiji.features.feature_table.export_table`.
        dataset: a dataset with the same ``user_id`` values.

    Returns:
        the rows with intents of users in the dataset, with the columns :data:`COLUMNS`.

    Raises:
        InputError: the file lacks a required column, or has no row of a user in the dataset.
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
    """Return ``tokens_per_item``, the mean number of tokens read and written per item, from a table of item knowledge.
    The result is empty if tokens are not recorded."""
    return _tokens_per(table, "item")


def tokens_per_row(path: str | Path) -> dict[str, float]:
    """Return ``tokens_per_user``, the mean number of tokens read and written per answer, from ``completions.parquet``
    next to a feature table. The result is empty if tokens are not recorded."""
    file = Path(path).expanduser().parent / COMPLETIONS
    return _tokens_per(pl.read_parquet(file) if file.is_file() else pl.DataFrame(), "user")


def _tokens_per(table: pl.DataFrame, unit: str) -> dict[str, float]:
    counted = [name for name in ("prompt_tokens", "completion_tokens") if name in table.columns]
    return {f"tokens_per_{unit}": float(sum(table[name].sum() for name in counted)) / len(table)} if counted else {}


def knowledge_rungs(table: pl.DataFrame, embedder: str, against: str) -> list[Rung]:
    """Return rung 3 and its control, both compared with the rung ``against``."""
    name, cost = f"3 item knowledge, {embedder}", tokens_per_item(table)
    return [
        Rung(name, Knowledge(table, embedder), against, True, True, cost),
        Rung(f"{name}: control, shuffled", Knowledge(table, embedder, ShuffledKnowledge), against, True, True),
    ]


def intent_rungs(name: str, table: pl.DataFrame, against: str, cost: Mapping[str, float]) -> list[Rung]:
    """Return a rung of intents and its control, both compared with the rung ``against``."""
    return [
        Rung(name, Intents(table), against, True, True, cost, Told(table)),
        Rung(f"{name}: control, another user's", Intents(table, True), against, True, True, covers=Told(table)),
    ]


class StudentIntents(NumbersField):
    """Agreement of a candidate with the intents that a student model, trained on a table, writes for its user. Every
    row whose user has a history has intents.

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
        """Train the student on the table rows available before ``until``, and fit the agreement on the student's
        intents."""
        self.student.fit(dataset, self.table.filter(pl.col("available_at") < until))
        self.match.fit(dataset, self._told(dataset, rows), until)

    def matrix(self, rows: Rows) -> Array:
        """Return the agreement."""
        return self.match.matrix(Rows(rows.dataset, self._told(rows.dataset, rows.frame)))


def student_rungs(table: pl.DataFrame, against: str) -> list[Rung]:
    """Return the rung of the student, which costs no tokens beyond those of its training rows.

    The student has intents for every row whose user has a history. Its results on the rows that the language model
    covers are also reported, so that both can be compared on the same rows.
    """
    fields, free = (lambda trial: [StudentIntents(table)]), {"tokens_per_user": 0.0}
    return [Rung("4 intents, student", fields, against, True, True, free, has_history, Told(table))]


def has_history(trial: Trial, rows: pl.DataFrame) -> Array:
    """Return a mask (N,) of the rows whose user has an earlier interaction."""
    items, _ = trial.dataset.history.before_batch(rows["user"].to_numpy(), rows["time"].to_numpy(), 1)
    return np.asarray(items[:, 0] != NO_ITEM)
