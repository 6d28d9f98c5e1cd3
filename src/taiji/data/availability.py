"""Times between which an item may be shown."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from taiji.core.errors import InputError
from taiji.data.dataset import Dataset

Ints = NDArray[np.int64]
FROM, UNTIL = "available_from", "available_until"
"""Optional columns of the item table: times, null where there is no bound."""
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
            InputError: a column that is neither times nor whole microseconds.
        """
        return cls(
            _times(dataset.items, FROM, EVER.min),
            _times(dataset.items, UNTIL, EVER.max),
        )

    @cached_property
    def bounded(self) -> bool:
        """True if any item is ever unavailable."""
        return bool((self.first > EVER.min).any() or (self.end < EVER.max).any())

    def at(self, times: ArrayLike) -> NDArray[np.bool_]:
        """Return which items (n_items,) may be shown at each time (B,): (B, n_items)."""
        now = np.asarray(times, dtype=np.int64)[:, None]
        return (self.first <= now) & (now < self.end)


def _times(items: pl.DataFrame, column: str, missing: int) -> Ints:
    if column not in items.columns:
        return np.full(len(items), missing, dtype=np.int64)
    values = items[column]
    if isinstance(values.dtype, pl.Datetime):
        values = values.dt.cast_time_unit("us").cast(pl.Int64)
    elif isinstance(values.dtype, pl.Date):
        values = values.cast(pl.Datetime("us")).cast(pl.Int64)
    elif not values.dtype.is_integer():
        raise InputError(
            "A column of the item table is not a time.",
            where=f"items, {column}",
            expected="dates, times, or whole microseconds since the epoch",
            found=str(values.dtype),
        )
    return values.fill_null(missing).to_numpy().astype(np.int64)
