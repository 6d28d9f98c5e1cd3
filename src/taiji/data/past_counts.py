"""Point-in-time counts: how often, and when last, something happened strictly before a time; vectorised over rows."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taiji.data.history import TimeIndex

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class PastCount:
    """Counts of past events by an integer key.

    Args:
        keys: (E,) int64, what happened.
        times: (E,) int64, when it became known, in any order.
    """

    def __init__(self, keys: Ints, times: Ints) -> None:
        order = np.lexsort((times, keys))
        self.times = np.asarray(times, dtype=np.int64)[order]
        self.keys, start = np.unique(np.asarray(keys, dtype=np.int64)[order], return_index=True)
        # The last row is empty; a key that never happened is counted there.
        self.index = TimeIndex(np.concatenate([start, [len(order), len(order)]]).astype(np.int64), self.times)

    @cached_property
    def _dense(self) -> Ints | None:
        """Row of each key from 0 on, where the keys lie close together; ids of users and items do."""
        if not len(self.keys) or self.keys[0] < 0 or self.keys[-1] >= 4 * len(self.times) + 1024:
            return None
        rows = np.full(int(self.keys[-1]) + 1, len(self.keys))
        rows[self.keys] = np.arange(len(self.keys))
        return rows

    def rows(self, keys: Ints) -> Ints:
        """Return each key's row of the index: (N,) int64."""
        if self._dense is not None:
            inside = (keys >= 0) & (keys < len(self._dense))
            return np.where(inside, self._dense.take(keys, mode="clip"), len(self.keys))
        at = np.searchsorted(self.keys, keys)
        return np.where(self.keys.take(at, mode="clip") == keys, at, len(self.keys)) if len(self.keys) else at

    def slices(self, keys: Ints, times: Ints) -> tuple[Ints, Ints]:
        """Return first and one-past-last position, in time order, of each key's events strictly before each time."""
        return self.index.before(self.rows(keys), times)

    def before(self, keys: Ints, times: Ints) -> tuple[Ints, Ints]:
        """Return ``(count, last)``: events strictly before, and the time of the newest (0 when none), each (N,) int64."""
        start, end = self.slices(keys, times)
        if not len(self.times):
            return end - start, np.zeros(len(end), np.int64)
        return end - start, np.where(end > start, self.times[np.maximum(end - 1, 0)], 0)

    def between(self, keys: Ints, first: Ints, times: Ints) -> Ints:
        """Return the number of events at or after ``first`` and strictly before the times: (N,) int64."""
        rows = self.rows(keys)
        return self.index.before(rows, times)[1] - self.index.before(rows, first)[1]


class PastMean:
    """Means of past numbers by an integer key.

    Args:
        keys: (E,) int64, what was measured; times: (E,) int64, when; values: (E,) float64, how much.
        base: (K,) sum and (K,) number of what was known of keys 0 … K − 1 before the log began.

    Sums are kept in millionths, as integers: in floating point a sum would change in its last bits with events of the future.
    """

    def __init__(self, keys: Ints, times: Ints, values: Floats, base: tuple[NDArray[Any], NDArray[Any]]) -> None:
        self.base = np.rint(base[0] * 1e6).astype(np.int64), base[1].astype(np.int64)
        self.counts = PastCount(keys, times)
        self.sums = np.append(0, np.cumsum(np.rint(values * 1e6).astype(np.int64)[np.lexsort((times, keys))]))

    def before(self, keys: Ints, times: Ints) -> Floats:
        """Return the mean strictly before each time, NaN where nothing was known: (N,) float64."""
        start, end = self.counts.slices(keys, times)
        total, number = self.sums[end] - self.sums[start] + self.base[0][keys], end - start + self.base[1][keys]
        return np.divide(total / 1e6, number, out=np.full(len(keys), np.nan), where=number > 0)
