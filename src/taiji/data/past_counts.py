"""Point-in-time counts: the number of events strictly before a time, and the time of the last one, vectorised over
rows.

A counter is a few plain arrays, which may be in memory or on disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from taiji.data.history import TimeIndex

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Arrays = Mapping[str, NDArray[Any]]


class PastCount:
    """Counts of past events by an integer key.

    Args:
        keys: keys of the events, (E,) int64.
        times: times at which the events became known, (E,) int64, in any order.
    """

    def __init__(self, keys: Ints, times: Ints) -> None:
        order = np.lexsort((times, keys))
        keys, times = np.asarray(keys, dtype=np.int64)[order], np.asarray(times, dtype=np.int64)[order]
        self.keys: NDArray[np.integer[Any]] | None = None
        """Keys that have events, ascending. None if the keys are dense, like the ids of users and items, so that every
        key from 0 on has a row."""
        # The last row is empty; keys without events are mapped to it.
        if len(keys) and keys[0] >= 0 and keys[-1] < 4 * len(keys) + 1024:
            offsets = np.cumsum(np.concatenate([[0], np.bincount(keys), [0]]))
        else:
            distinct, start = np.unique(keys, return_index=True)
            self.keys, offsets = narrow(distinct), np.concatenate([start, [len(keys), len(keys)]])
        self.index = TimeIndex(narrow(offsets), times)

    @classmethod
    def of(cls, arrays: Arrays, until: int) -> Self:
        """Return the counter that has the given :attr:`arrays` and no event after ``until``."""
        made = cls.__new__(cls)
        made.keys, made.index = arrays.get("keys"), TimeIndex(arrays["offsets"], arrays["times"], until)
        return made

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """Arrays from which :meth:`of` restores the counter."""
        found = {"offsets": self.index.offsets, "times": self.index.times}
        return found if self.keys is None else {**found, "keys": self.keys}

    def rows(self, keys: Ints) -> Ints:
        """Return the row of each key in the index, (N,) int64."""
        none = len(self.index.offsets) - 2
        if self.keys is None:
            return np.where((keys >= 0) & (keys < none), keys, none)
        if not none:
            return np.zeros(len(keys), np.int64)
        if not len(keys):
            return np.zeros(0, np.int64)
        # Convert to the type of the stored keys; otherwise the search would convert all of them.
        wanted = np.clip(keys, self.keys[0], self.keys[-1]).astype(self.keys.dtype)
        # A request reads the keys of one user, which are adjacent, so only their range is searched.
        first, last = np.searchsorted(self.keys, np.array([wanted.min(), wanted.max()]))
        at = first + np.searchsorted(self.keys[first : last + 1], wanted)
        return np.where(self.keys[at] == keys, at, none)

    def slices(self, keys: Ints, times: Ints) -> tuple[Ints, Ints]:
        """For each pair of key and time, return the first and the one-past-last position of the key's events strictly
        before the time. Events are sorted by key and then by time."""
        return self.index.before(self.rows(keys), times)

    def number(self, keys: Ints, times: Ints) -> Ints:
        """For each pair of key and time, return the number of the key's events strictly before the time, (N,) int64."""
        start, end = self.slices(keys, times)
        return end - start

    def before(self, keys: Ints, times: Ints) -> tuple[Ints, Ints]:
        """For each pair of key and time, return the number of the key's events strictly before the time, and the time
        of the last of them (0 if there are none), (N,) int64 each."""
        start, end = self.slices(keys, times)
        known = self.index.times
        if not len(known):
            return end - start, np.zeros(len(end), np.int64)
        return end - start, np.where(end > start, known[np.maximum(end - 1, 0)], 0)

    def between(self, keys: Ints, first: Ints, times: Ints) -> Ints:
        """Return the number of each key's events at or after ``first`` and strictly before ``times``, (N,) int64."""
        rows = self.rows(keys)
        return self.index.before(rows, times)[1] - self.index.before(rows, first)[1]


class PastMean:
    """Means of past numbers by an integer key.

    Args:
        keys: keys of the numbers, (E,) int64.
        times: times at which they became known, (E,) int64.
        values: numbers, (E,) float64.
        base: sums and counts, (K,) each, of the numbers known before the log began, for the keys 0 … K − 1.

    Sums, including the total of each key, are stored as integers, in millionths. In floating point, the last bits of a
    sum would depend on future events.
    """

    def __init__(self, keys: Ints, times: Ints, values: Floats, base: tuple[NDArray[Any], NDArray[Any]]) -> None:
        self.base: tuple[Ints, Ints] = np.rint(base[0] * 1e6).astype(np.int64), base[1].astype(np.int64)
        self.counts = PastCount(keys, times)
        self.sums: Ints = np.append(0, np.cumsum(np.rint(values * 1e6).astype(np.int64)[np.lexsort((times, keys))]))
        self.totals: Ints = np.diff(self.sums[self.counts.index.offsets])

    @classmethod
    def of(cls, arrays: Arrays, until: int) -> Self:
        """Return the means that have the given :attr:`arrays` and no number after ``until``."""
        made = cls.__new__(cls)
        made.base, made.sums, made.totals = (
            (arrays["base_sums"], arrays["base_counts"]),
            arrays["sums"],
            arrays["totals"],
        )
        made.counts = PastCount.of(arrays, until)
        return made

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """Arrays from which :meth:`of` restores the means."""
        own = {"sums": self.sums, "totals": self.totals, "base_sums": self.base[0], "base_counts": self.base[1]}
        return {**self.counts.arrays, **own}

    def before(self, keys: Ints, times: Ints) -> Floats:
        """For each pair of key and time, return the mean of the key's numbers known strictly before the time, (N,)
        float64; NaN if there are none."""
        rows = self.counts.rows(keys)
        start, end = self.counts.index.before(rows, times)
        if len(times) and times.min() > self.counts.index.latest:  # after all events: the totals suffice
            known = self.totals[rows]
        else:
            known = self.sums[end] - self.sums[start]
        total, number = known + self.base[0][keys], end - start + self.base[1][keys]
        return np.divide(total / 1e6, number, out=np.full(len(keys), np.nan), where=number > 0)


def narrow(values: NDArray[np.integer[Any]]) -> NDArray[np.integer[Any]]:
    """Convert ascending integers to uint32 if all of them fit; otherwise return them unchanged."""
    fits = not len(values) or (values[0] >= 0 and values[-1] <= np.iinfo(np.uint32).max)
    return values.astype(np.uint32) if fits else values
