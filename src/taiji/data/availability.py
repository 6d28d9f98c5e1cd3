"""Start and end of the period in which an item may be shown."""

from __future__ import annotations

import re
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
"""Optional columns of the table of items: the times from which, and until which, an item may be shown; null where there
is no bound."""
EPOCH, MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
MICROSECONDS = re.compile(r"\d{15,17}")
"""Pattern of microseconds since the epoch, as text, from 1973 to 5138.

A shorter number is read as ISO 8601 (20260131). Almost all times in seconds or milliseconds are rejected in this way.
"""
EVER = np.iinfo(np.int64)


@dataclass(frozen=True, eq=False)
class Availability:
    """Period in which each item is available: from ``first`` (inclusive) to ``end`` (exclusive).

    Attributes:
        first: start of each item's availability, (n_items,), in microseconds since the epoch.
        end: end of each item's availability, (n_items,), in microseconds since the epoch.
    """

    first: Ints
    end: Ints

    def __post_init__(self) -> None:
        if self.first.shape != self.end.shape or self.first.ndim != 1:
            raise InputError(
                "Availability requires one start time and one end time per item.",
                expected="two arrays of shape (n_items,)",
                found=f"{self.first.shape} and {self.end.shape}",
            )

    @classmethod
    def of(cls, dataset: Dataset) -> Availability:
        """Read the columns ``available_from`` and ``available_until`` of the items. Without these columns, items are
        always available.

        Raises:
            InputError: a column holds neither times, nor ISO 8601 texts, nor integers (microseconds).
        """
        return cls(
            bound_times(dataset.items, FROM, EVER.min),
            bound_times(dataset.items, UNTIL, EVER.max),
        )

    @cached_property
    def bounded(self) -> bool:
        """True if any item is unavailable at some time."""
        return bool((self.first > EVER.min).any() or (self.end < EVER.max).any())

    def at(self, times: ArrayLike) -> NDArray[np.bool_]:
        """Return a mask (B, n_items) of the items that may be shown at each time (B,)."""
        now = np.asarray(times, dtype=np.int64)[:, None]
        return (self.first <= now) & (now < self.end)


def bound_times(items: pl.DataFrame, column: str, missing: int, table: str = "items") -> Ints:
    """Read a column of times as microseconds since the epoch, (N,).

    Args:
        items: table with one row per item.
        column: column of times.
        missing: value where the time, or the whole column, is missing.
        table: name of the table in error messages.

    Raises:
        InputError: the column holds neither times, nor ISO 8601 texts, nor integers (microseconds, as numbers or as
            text).
    """
    if column not in items.columns:
        return np.full(len(items), missing, dtype=np.int64)
    values = items[column]
    if isinstance(values.dtype, pl.Datetime):
        values = values.dt.cast_time_unit("us").cast(pl.Int64)
    elif isinstance(values.dtype, pl.Date):
        values = values.cast(pl.Datetime("us")).cast(pl.Int64)
    elif values.dtype == pl.String:
        values = _parse_iso(values, column, table)
    elif values.dtype == pl.Null:
        values = values.cast(pl.Int64)
    elif not values.dtype.is_integer():
        raise _not_times_error(column, str(values.dtype), table)
    return values.fill_null(missing).to_numpy().astype(np.int64)


def _parse_iso(texts: pl.Series, column: str, table: str) -> pl.Series:
    """Parse ISO 8601 dates and times, and integers, in text to microseconds. Times without an offset are UTC; blank
    texts are missing."""
    times: list[int | None] = []
    for text in texts:
        said = (text or "").strip()
        try:
            if not said:
                times.append(None)
            elif MICROSECONDS.fullmatch(said):
                times.append(int(said))
            elif said.isdecimal() and len(said) != len("YYYYMMDD"):  # fromisoformat reads some numbers as dates
                raise ValueError
            else:
                time = datetime.fromisoformat(said)
                times.append((time.replace(tzinfo=time.tzinfo or UTC) - EPOCH) // MICROSECOND)
        except ValueError:
            raise _not_times_error(column, repr(text), table) from None
    return pl.Series(times, dtype=pl.Int64)


def _not_times_error(column: str, found: str, table: str) -> InputError:
    """Return the error to raise for a column that does not hold times."""
    return InputError(
        "A column does not contain times.",
        where=f"{table}, {column}",
        expected="dates, times, texts such as 2026-01-31 or 2026-01-31T12:00:00Z, or integers (microseconds since the epoch)",
        found=found,
        fix="correct the column; leave a cell empty where there is no bound",
    )
