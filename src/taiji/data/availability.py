"""Times between which an item may be shown."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from taiji.core.errors import InputError
from taiji.data.dataset import Dataset

Ints = NDArray[np.int64]
FROM, UNTIL = "available_from", "available_until"
"""Optional columns of the item table: times, null where there is no bound."""
EPOCH, MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
EVER = np.iinfo(np.int64)


@dataclass(frozen=True, eq=False)
class Availability:
    """Items are available from their first time on, and strictly before their end.

    Attributes:
        first: (n_items,) microseconds since the epoch.
        end: (n_items,) likewise.
    """

    first: Ints
    end: Ints

    def __post_init__(self) -> None:
        if self.first.shape != self.end.shape or self.first.ndim != 1:
            raise InputError(
                "Availability needs one first time and one end per item.",
                expected="two arrays (n_items,)",
                found=f"{self.first.shape} and {self.end.shape}",
            )

    @classmethod
    def of(cls, dataset: Dataset) -> Availability:
        """Return what the item table says in ``available_from`` and ``available_until``; without them, items are always available.

        Raises:
            InputError: a column that is neither times, nor ISO 8601 texts, nor whole microseconds.
        """
        return cls(
            bound_times(dataset.items, FROM, EVER.min),
            bound_times(dataset.items, UNTIL, EVER.max),
        )

    @cached_property
    def bounded(self) -> bool:
        """True if any item is ever unavailable."""
        return bool((self.first > EVER.min).any() or (self.end < EVER.max).any())

    def at(self, times: ArrayLike) -> NDArray[np.bool_]:
        """Return which items (n_items,) may be shown at each time (B,): (B, n_items)."""
        now = np.asarray(times, dtype=np.int64)[:, None]
        return (self.first <= now) & (now < self.end)


def bound_times(items: pl.DataFrame, column: str, missing: int, table: str = "items") -> Ints:
    """Return a column's times in microseconds since the epoch, (N,); ``missing`` where there is none, or no such column.

    Args:
        items: a row each. column: column of times. missing: see above. table: its name in an error.

    Raises:
        InputError: it holds neither times, nor ISO 8601 texts, nor whole microseconds.
    """
    if column not in items.columns:
        return np.full(len(items), missing, dtype=np.int64)
    values = items[column]
    if isinstance(values.dtype, pl.Datetime):
        values = values.dt.cast_time_unit("us").cast(pl.Int64)
    elif isinstance(values.dtype, pl.Date):
        values = values.cast(pl.Datetime("us")).cast(pl.Int64)
    elif values.dtype == pl.String:
        values = _written(values, column, table)
    elif not values.dtype.is_integer():
        raise _no_times(column, str(values.dtype), table)
    return values.fill_null(missing).to_numpy().astype(np.int64)


def _written(texts: pl.Series, column: str, table: str) -> pl.Series:
    """Return ISO 8601 dates and times, which is all that a CSV file can hold, in microseconds; without an offset they are UTC."""
    times: list[int | None] = []
    for text in texts:
        try:
            time = None if text is None else datetime.fromisoformat(text)
        except ValueError:
            raise _no_times(column, repr(text), table) from None
        if time is not None and time.tzinfo is None:
            time = time.replace(tzinfo=UTC)
        times.append(None if time is None else (time - EPOCH) // MICROSECOND)
    return pl.Series(times, dtype=pl.Int64)


def _no_times(column: str, found: str, table: str) -> InputError:
    """Return the error about a column that does not hold times."""
    return InputError(
        "A column is not a time.",
        where=f"{table}, {column}",
        expected="dates, times, texts of the form 2026-01-31 or 2026-01-31T12:00:00Z, or whole microseconds since the epoch",
        found=found,
        fix="leave the cell empty where there is no bound",
    )
