"""Point-in-time counts: the number of events strictly before a time, and the time of the last one, vectorised over rows."""

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
        keys: keys of the events, (E,) int64.
        times: times at which the events became known, (E,) int64, in any order.
    """

    def __init__(self, keys: Ints, times: Ints) -> None:
        order = np.lexsort((times, keys))
        self.times = np.asarray(times, dtype=np.int64)[order]
        self.keys, start = np.unique(np.asarray(keys, dtype=np.int64)[order], return_index=True)
        # The last row is empty; keys without events are mapped to it.
        self.index = TimeIndex(np.concatenate([start, [len(order), len(order)]]).astype(np.int64), self.times)

    @cached_property
    def _dense(self) -> Ints | None:
        """Row of each key from 0 on, or None if the keys are sparse. Ids of users and items are dense."""
        if not len(self.keys) or self.keys[0] < 0 or self.keys[-1] >= 4 * len(self.times) + 1024:
            return None
        rows = np.full(int(self.keys[-1]) + 1, len(self.keys))
        rows[self.keys] = np.arange(len(self.keys))
        return rows

    def rows(self, keys: Ints) -> Ints:
        """Return the row of each key in the index, (N,) int64."""
        if self._dense is not None:
            inside = (keys >= 0) & (keys < len(self._dense))
            return np.where(inside, self._dense.take(keys, mode="clip"), len(self.keys))
        at = np.searchsorted(self.keys, keys)
        return np.where(self.keys.take(at, mode="clip") == keys, at, len(self.keys)) if len(self.keys) else at

    def slices(self, keys: Ints, times: Ints) -> tuple[Ints, Ints]:
        """Return the first and the one-past-last position of each key's events strictly before each time, in chronological order."""
        return self.index.before(self.rows(keys), times)

    def before(self, keys: Ints, times: Ints) -> tuple[Ints, Ints]:
        """Return the number of events strictly before each time, and the time of the last one (0 without events), (N,) int64 each."""
        start, end = self.slices(keys, times)
        if not len(self.times):
            return end - start, np.zeros(len(end), np.int64)
        return end - start, np.where(end > start, self.times[np.maximum(end - 1, 0)], 0)

    def between(self, keys: Ints, first: Ints, times: Ints) -> Ints:
        """Return the number of events at or after ``first`` and strictly before ``times``, (N,) int64."""
        rows = self.rows(keys)
        return self.index.before(rows, times)[1] - self.index.before(rows, first)[1]


class PastMean:
    """Means of past numbers by an integer key.

    Args:
        keys: keys of the numbers, (E,) int64.
        times: times at which they became known, (E,) int64.
        values: numbers, (E,) float64.
        base: sum and count, (K,) each, of the numbers of keys 0 … K − 1 that were known before the log began.

    Sums are stored as integers, in millionths. In floating point, the last bits of a sum would depend on future events.
    """

    def __init__(self, keys: Ints, times: Ints, values: Floats, base: tuple[NDArray[Any], NDArray[Any]]) -> None:
        self.base = np.rint(base[0] * 1e6).astype(np.int64), base[1].astype(np.int64)
        self.counts = PastCount(keys, times)
        self.sums = np.append(0, np.cumsum(np.rint(values * 1e6).astype(np.int64)[np.lexsort((times, keys))]))

    def before(self, keys: Ints, times: Ints) -> Floats:
        """Return the mean of the numbers known strictly before each time, (N,) float64, NaN without numbers."""
        start, end = self.counts.slices(keys, times)
        total, number = self.sums[end] - self.sums[start] + self.base[0][keys], end - start + self.base[1][keys]
        return np.divide(total / 1e6, number, out=np.full(len(keys), np.nan), where=number > 0)
