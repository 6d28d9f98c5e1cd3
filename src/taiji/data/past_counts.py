"""Point-in-time counts: how often, and when last, something happened strictly before a moment.

All queries are two binary searches over sorted integer codes, vectorised over rows.
"""

from __future__ import annotations

import numpy as np


class Clock:
    """The distinct times of a log, so that a time becomes a small rank and (key, rank) fits one int64."""

    def __init__(self, times: np.ndarray) -> None:
        self.times = np.unique(times)

    def rank(self, times: np.ndarray) -> np.ndarray:
        """Number of distinct log times strictly before each time: (N,) int64."""
        return np.searchsorted(self.times, times, side="left")


class PastCount:
    """Counts of past events by an integer key.

    Args:
        clock: built from (at least) ``times``.
        keys: (E,) int64, what happened.
        times: (E,) int64, when it became known.
    """

    def __init__(self, clock: Clock, keys: np.ndarray, times: np.ndarray) -> None:
        self.span = len(clock.times) + 1
        order = np.lexsort((times, keys))
        self.times = np.asarray(times, dtype=np.int64)[order]
        self.keys, start = np.unique(np.asarray(keys, dtype=np.int64)[order], return_index=True)
        self.start = np.append(start, len(order)).astype(np.int64)
        index = np.repeat(np.arange(len(self.keys)), np.diff(self.start))
        self.codes = index * self.span + clock.rank(self.times)

    def locate(self, keys: np.ndarray) -> np.ndarray:
        """Index of each key among the known keys, -1 when it never happened: (N,) int64."""
        if not len(self.keys):
            return np.full(len(keys), -1)
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[at] == keys, at, -1)

    def position(self, index: np.ndarray, ranks: np.ndarray) -> np.ndarray:
        """Position just after each key's last event before the rank: (N,) int64; meaningless for index -1."""
        return np.searchsorted(self.codes, index * self.span + ranks, side="left")

    def before(self, keys: np.ndarray, ranks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return ``(count, last)``: events strictly before, and the time of the newest (0 when none), each (N,) int64."""
        index = self.locate(keys)
        known = index >= 0
        end = np.where(known, self.position(index, ranks), 0)
        count = np.where(known, end - self.start[np.maximum(index, 0)], 0)
        last = (
            np.where(count > 0, self.times[np.maximum(end - 1, 0)], 0)
            if len(self.times)
            else np.zeros(len(count), np.int64)
        )
        return count, last

    def between(self, keys: np.ndarray, first: np.ndarray, ranks: np.ndarray) -> np.ndarray:
        """Events with rank in ``[first, ranks)``: (N,) int64."""
        index = self.locate(keys)
        return np.where(index >= 0, self.position(index, ranks) - self.position(index, first), 0)


class PastMean:
    """Means of past numbers by an integer key.

    Args:
        clock: built from (at least) ``times``.
        keys: (E,) int64, what was measured; times: (E,) int64, when; values: (E,) float64, how much.
        base: (K,) sum and (K,) number of what was known of keys 0 … K − 1 before the log began.

    Sums are kept in millionths, as integers: in floating point a sum would change in its last bits with events of the future.
    """

    def __init__(
        self, clock: Clock, keys: np.ndarray, times: np.ndarray, values: np.ndarray, base: tuple[np.ndarray, np.ndarray]
    ) -> None:
        self.base = np.rint(base[0] * 1e6).astype(np.int64), base[1].astype(np.int64)
        self.counts = PastCount(clock, keys, times)
        self.sums = np.append(0, np.cumsum(np.rint(values * 1e6).astype(np.int64)[np.lexsort((times, keys))]))

    def before(self, keys: np.ndarray, ranks: np.ndarray) -> np.ndarray:
        """Mean strictly before the rank, NaN where nothing was known: (N,) float64."""
        index = self.counts.locate(keys)
        known = np.maximum(index, 0)
        start = self.counts.start[known] if len(self.counts.keys) else np.zeros(len(keys), dtype=np.int64)
        end = np.where(index >= 0, self.counts.position(known, ranks), start)
        total, number = self.sums[end] - self.sums[start] + self.base[0][keys], end - start + self.base[1][keys]
        return np.divide(total / 1e6, number, out=np.full(len(keys), np.nan), where=number > 0)
