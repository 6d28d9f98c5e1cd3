"""Fields with several values per row: sequences of items, quantiser codes, and dense vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from taiji.core.errors import ConfigError, InputError
from taiji.data.dataset import Dataset
from taiji.data.fields import Field, Rows
from taiji.data.history import rows_and_places
from taiji.data.statistics import DAY

Array = NDArray[Any]


BATCH_NAMES = ("users", "user", "user_categories", "items", "item", "numbers", "categories")
"""Names of a batch's inputs that fields with several values must not use."""


def _checked(name: str) -> str:
    """Return a name if it is valid for a PyTorch module and for an input in a batch.

    Raises:
        ConfigError: the name is not an identifier or is reserved.
    """
    if not name.isidentifier() or name in BATCH_NAMES or name.startswith("_") or name in dir(dict):
        raise ConfigError(
            "The name of a field with several values is invalid.",
            where=f"field {name!r}",
            expected=f"letters, digits and underscores, beginning with a letter, and none of {', '.join(BATCH_NAMES)}, keys, values, …",
            found=name,
            fix="set a different `name`",
        )
    return name


class SequenceField(Field):
    """Field of a sequence of items, newest first, for attention or pooling.

    Args:
        length: largest length of a sequence.
        column: list column of dense item ids, newest first; None uses the interactions of the user strictly before the
            time of the row.
        name: name of the field; by default the name of the column, or ``history``.
    """

    def __init__(self, length: int, column: str | None = None, name: str | None = None) -> None:
        super().__init__(_checked(name or column or "history"), "user")
        self.length, self.column = length, column
        self.options = {"length": length, "column": column, "name": name}

    @property
    def aged(self) -> bool:
        """True if the ages of the entries are known."""
        return self.column is None

    def sequences(self, rows: Rows) -> tuple[Array, Array | None]:
        """Return the items, (N, length) int32 padded with -1, and log1p of their ages in hours, (N, length) float16;
        None instead of unknown ages."""
        if self.column is not None:
            return _padded(rows, self.column, self.length), None
        items, times = rows.dataset.history.before_batch(rows.user, rows.time, self.length)
        hours = np.maximum(rows.time[:, None] - times, 0) / (DAY / 24)
        return items.astype(np.int32), np.where(items >= 0, np.log1p(hours), 0).astype(np.float16)


class CodesField(Field):
    """Field of quantiser codes, one per slot, in a list column of fixed length.

    Args:
        column: name of the list column of the rows.
    """

    learnt = ("slots", "values")

    def __init__(self, column: str) -> None:
        super().__init__(_checked(column), "user")
        self.slots = self.values = 0
        self.options = {"column": column}

    def fit(self, dataset: Dataset, rows: pl.DataFrame, until: int) -> None:
        """Fit the number of slots, and the number of values per slot as a power of two."""
        self.slots = _fixed_length(rows, self.name)
        highest = rows.select(pl.col(self.name).list.max().max().cast(pl.Int64)).item() if self.slots else None
        self.values = 1 << highest.bit_length() if highest is not None else 0

    def codes(self, rows: Rows) -> Array:
        """Return the codes, (N, slots) int32, -1 where a code is missing or out of range."""
        found = _fixed(rows, self.name, self.slots, -1.0).astype(np.int32)
        return np.where(found >= self.values, -1, found)


class VectorField(Field):
    """Field of one dense vector per row, in a list column of fixed length.

    Args:
        column: name of the list column of the rows.
    """

    learnt = ("width",)

    def __init__(self, column: str) -> None:
        super().__init__(_checked(column), "user")
        self.width = 0
        self.options = {"column": column}

    def fit(self, dataset: Dataset, rows: pl.DataFrame, until: int) -> None:
        """Fit the length of the vectors."""
        self.width = _fixed_length(rows, self.name)

    def vectors(self, rows: Rows) -> tuple[Array, Array]:
        """Return the vectors, (N, width) float32, 0 where missing, and a mask of the rows with a vector, (N,)
        float32."""
        found = _fixed(rows, self.name, self.width, np.nan) if self.width else np.zeros((len(rows), 0))
        present = np.asarray(np.isfinite(found).all(axis=1)) & (self.width > 0)
        return np.where(present[:, None], found, 0).astype(np.float32), present.astype(np.float32)


def _fixed_length(rows: pl.DataFrame, column: str) -> int:
    lengths = rows[column].list.len().drop_nulls().unique()
    if len(lengths) > 1:
        raise InputError(
            f"The lists in the feature column {column!r} have different lengths.",
            where=f"exposures[{column!r}]",
            expected="the same number of values in every row",
            found=f"lengths {sorted(lengths)[:5]}",
        )
    return int(lengths[0]) if len(lengths) else 0


def _fixed(rows: Rows, column: str, width: int, missing: float) -> Array:
    """Convert a list column of fixed length to (N, width) float32, with ``missing`` in rows without a list."""
    out = np.full((len(rows), width), missing, dtype=np.float32)
    if not width or column not in rows.columns:
        return out
    if (given := rows.lists(column)) is not None:
        for place, values in enumerate(given):
            if values is not None:
                _check_length(column, width, len(values))
                out[place] = values
        return out
    frame = rows.frame
    if frame.schema[column] != pl.Null:
        present = (frame[column].list.len() == width).fill_null(False).to_numpy()
        wrong = (frame[column].list.len() != width).fill_null(False)
        if wrong.any():
            _check_length(column, width, frame[column].list.len().filter(wrong)[0])
        out[present] = frame[column].filter(pl.Series(present)).explode().to_numpy().reshape(-1, width)
    return out


def _check_length(column: str, width: int, found: int) -> None:
    if found != width:
        raise InputError(
            f"The lists in the feature column {column!r} do not have the same length as in training.",
            where=f"exposures[{column!r}]",
            expected=f"{width} values",
            found=f"{found}",
        )


def _padded(rows: Rows, column: str, width: int) -> Array:
    """Convert a list column to (N, width) int32, padded with -1. A missing column gives only padding."""
    out = np.full((len(rows), width), -1, dtype=np.int32)
    if column not in rows.columns:
        return out
    if (given := rows.lists(column)) is not None:
        for place, listed in enumerate(given):
            if listed is not None:
                out[place, : len(listed)] = listed[:width]
        return out
    frame = rows.frame
    if frame.schema[column] != pl.Null:
        lists = frame[column].list.head(width)
        lengths = lists.list.len().fill_null(0).to_numpy().astype(np.int64)
        values = lists.filter(pl.Series(lengths > 0)).explode().to_numpy()
        out[rows_and_places(lengths)] = values
    return out
