"""Codes of items over time: which codes an item has at a given time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
ALWAYS = int(np.iinfo(np.int64).min)
"""Time of codes that never change."""


@dataclass(frozen=True, eq=False)
class CodeLog:
    """Assignments of codes to items, in the order of their times. If an item has several assignments at the same time,
    the last one counts.

    Attributes:
        times: (T,) time of each assignment, ascending.
        items: (T,) item of each assignment.
        codes: (T, L) codes that the item has from this time on.
    """

    times: Array
    items: Array
    codes: Array

    @classmethod
    def constant(cls, codes: Array) -> Self:
        """Return the log of items 0 … N − 1 whose codes (N, L) never change. The assignment of item i has position
        i."""
        return cls(np.full(len(codes), ALWAYS), np.arange(len(codes)), codes)

    @property
    def changes(self) -> bool:
        """True if codes change over time; False for a log from :meth:`constant`."""
        return bool(len(self.times) and self.times[-1] != ALWAYS)

    @cached_property
    def ticks(self) -> Array:
        """Distinct times of assignments (C,), ascending."""
        return np.unique(self.times)

    def tick(self, times: Array) -> Array:
        """Return the number of ticks at or before each time, as an array of the shape of ``times``."""
        return np.searchsorted(self.ticks, times, side="right")

    def last(self, items: Array, times: Array) -> Array:
        """Return the position in the log of each item's last assignment at or before a time; −1 if there is none, or if
        the item is −1.

        Args:
            items: items, of any shape.
            times: times, of a shape that broadcasts to that of the items.
        """
        items = np.asarray(items, np.int64)
        if not self.changes:
            return np.where(items < len(self.items), items, -1)
        order, keys, width = self._sorted
        wanted = items * width + self.tick(times)
        place = np.searchsorted(keys, wanted, side="right") - 1
        found = (place >= 0) & (items >= 0)
        place = np.maximum(place, 0)
        return np.where(found & (keys[place] // width == items), order[place], -1)

    def at_tick(self, tick: int, count: int) -> Array:
        """Return the position (N,) in the log of the assignment that each of the items 0 … N − 1 has after the first
        ``tick`` ticks; −1 for none. ``count`` is N."""
        return self.last(np.arange(count), self.ticks[tick - 1]) if tick else np.full(count, -1)

    @cached_property
    def _sorted(self) -> tuple[Array, Array, int]:
        """Return the positions (T,) sorted by item and then by tick, their sort keys (T,), and the width of an item's
        range of keys."""
        width = len(self.ticks) + 1
        keys = self.items * width + self.tick(self.times)
        order = np.argsort(keys, kind="stable")
        return order, keys[order], width
