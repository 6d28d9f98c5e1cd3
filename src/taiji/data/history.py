"""Interactions of users and prices of items in chronological order, with queries for entries strictly before a time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

Ints = NDArray[np.int64]
BLOCK = 4096
"""Number of rows per gather, small enough for the processor cache."""


@dataclass(frozen=True, eq=False)
class TimeIndex:
    """Index that finds, for many pairs of row and time at once, the entries of the row strictly before the time.

    Attributes:
        offsets: offsets of the rows, ``(rows + 1,)``; row ``r`` has the entries ``offsets[r]:offsets[r + 1]``.
        times: times of the entries, ``(n,)``, ascending within a row.
        until: time after which there is no entry; None computes it by reading all times.
    """

    offsets: NDArray[np.integer[Any]]
    times: Ints
    until: int | None = None

    @cached_property
    def latest(self) -> int:
        """Time after which there is no entry; the smallest integer if there are no entries."""
        return int(np.max(self.times, initial=np.iinfo(np.int64).min)) if self.until is None else self.until

    def before(self, rows: ArrayLike, as_ofs: ArrayLike) -> tuple[Ints, Ints]:
        """For each pair of row and time, return the first and the one-past-last position of the row's entries strictly
        before the time, ``(B,)`` each.

        All binary searches advance together, so each step is one gather regardless of the lengths of the rows. No index
        besides the times is needed, and the times may be on disk.
        """
        rows, as_ofs = np.asarray(rows, np.int64), np.asarray(as_ofs, np.int64)
        if rows.size and (rows.min() < 0 or rows.max() >= len(self.offsets) - 1):
            raise IndexError(f"ids must lie in [0, {len(self.offsets) - 1}), found {rows.min()} to {rows.max()}")
        starts, ends = (self.offsets[places].astype(np.int64, copy=False) for places in (rows, rows + 1))
        if rows.size and as_ofs.min() > self.latest:  # a service asks about the present, after the end of the log
            return starts, ends
        if rows.size and rows.min() == rows.max():
            start, end = int(starts.flat[0]), int(ends.flat[0])
            return starts, start + np.searchsorted(self.times[start:end], as_ofs, side="left")
        low = starts.copy()
        for begin in range(0, len(rows), BLOCK):
            block = slice(begin, begin + BLOCK)
            self._advance(low[block], ends[block], as_ofs[block])
        return starts, low

    def _advance(self, low: Ints, ends: Ints, as_ofs: Ints) -> None:
        """Advance each position in ``low (B,)``, at most to its end, to just after the last entry that is strictly
        before the time."""
        for bit in reversed(range(int((ends - low).max(initial=0)).bit_length())):
            place = low + ((1 << bit) - 1)
            earlier = (place < ends) & (self.times.take(place, mode="clip") < as_ofs)
            low += earlier * (1 << bit)


def even_ranges(offsets: Ints, size: int) -> list[tuple[int, int]]:
    """Divide the rows delimited by ``offsets (n + 1,)`` into ranges ``[first, last)`` with about ``size`` entries each,
    without splitting a row."""
    ends = np.searchsorted(offsets, np.arange(size, int(offsets[-1]) + size, size))
    bounds = np.unique(np.concatenate([[0], np.minimum(ends, len(offsets) - 1), [len(offsets) - 1]]))
    return [(int(first), int(last)) for first, last in pairwise(bounds)]


def rows_and_places(counts: Ints) -> tuple[Ints, Ints]:
    """Return the row of each entry and its position in the row, ``(sum of counts,)`` each, for rows with ``counts
    (n,)`` entries."""
    rows = np.repeat(np.arange(len(counts)), counts)
    return rows, np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)


def compressed(rows: NDArray[Any], count: int) -> tuple[Ints, Ints]:
    """Return a stable order that groups entries by row, and the offsets of the rows, ``(count + 1,)``."""
    offsets = np.zeros(count + 1, np.int64)
    np.cumsum(np.bincount(rows, minlength=count), out=offsets[1:])
    return np.argsort(rows, kind="stable"), offsets


def untouched(users: Ints, items: Ints, times: Ints) -> NDArray[np.bool_]:
    """Return a mask ``(n,)`` of the interactions whose user had not interacted with the same item at an earlier
    time."""
    pairs, inverse = np.unique(users * (items.max(initial=0) + 1) + items, return_inverse=True)
    first = np.full(len(pairs), np.iinfo(np.int64).max)
    np.minimum.at(first, inverse, times)
    return times == first[inverse]


@dataclass(frozen=True, eq=False)
class Prices:
    """Prices of items over time: the prices of events and, before the first of them, the price in the table of items.

    Attributes:
        offsets: offsets of the items in ``prices`` and ``times``, ``(n_items + 1,)``. The entries of an item are in
            chronological order.
        prices: prices of the events that have a price, ``(n,)``.
        times: times of these events, ``(n,)``, in microseconds since the epoch.
        listed: prices in the table of items, ``(n_items,)``, NaN where missing.
        until: time after which there is no entry; None computes it by reading all times.
        final: last price of each item, ``(n_items,)``, if known; queries about times after the last event then do not
            read ``prices``.
    """

    offsets: Ints
    prices: NDArray[np.float64]
    times: Ints
    listed: NDArray[np.float64]
    until: int | None = None
    final: NDArray[np.float64] | None = None

    @classmethod
    def from_frames(cls, events: pl.DataFrame, items: pl.DataFrame) -> Prices:
        """Build the prices from the items of a dataset and its events, which are sorted by time."""
        priced = events.filter(pl.col("price").is_not_null())
        order, offsets = compressed(priced["item"].to_numpy(), len(items))
        listed = items["price"].fill_null(float("nan")).to_numpy()
        return cls(offsets, priced["price"].to_numpy()[order], priced["time"].to_numpy()[order], listed)

    @cached_property
    def _index(self) -> TimeIndex:
        return TimeIndex(self.offsets, self.times, self.until)

    def before(self, items: ArrayLike, as_ofs: ArrayLike) -> NDArray[np.float64]:
        """For each pair of item and time, return the last price of the item strictly before the time, ``(B,)``.

        If there is no such price, return the listed price of the item, or NaN if the listed price is missing.
        """
        if self.final is not None and np.min(as_ofs, initial=np.iinfo(np.int64).max) > self._index.latest:
            return self.final[np.asarray(items, np.int64)]
        starts, ends = self._index.before(items, as_ofs)
        found = self.listed[np.asarray(items, np.int64)]
        if len(self.prices):
            found = np.where(ends > starts, self.prices[np.maximum(ends - 1, 0)], found)
        return found


@dataclass(frozen=True, eq=False)
class History:
    """Interactions (events with a click) as compressed rows, one row per user.

    Attributes:
        offsets: offsets of the users, ``(n_users + 1,)``; user ``u`` has the slice ``offsets[u]:offsets[u + 1]``.
        items: dense item ids, ``(n,)``, in chronological order within a user (ties in the order of the events).
        times: times of the interactions, ``(n,)``, in microseconds since the epoch.
        until: time after which there is no entry; None computes it by reading all times.
    """

    offsets: Ints
    items: Ints
    times: Ints
    until: int | None = None

    @classmethod
    def from_events(cls, events: pl.DataFrame, n_users: int) -> History:
        """Build the history from the events of a dataset, which are sorted by time and have the columns ``user``,
        ``item``, ``time`` and ``click``."""
        clicks = events.filter(pl.col("click") == 1)
        order, offsets = compressed(clicks["user"].to_numpy(), n_users)
        return cls(
            offsets,
            clicks["item"].to_numpy()[order].astype(np.int64),
            clicks["time"].to_numpy()[order].astype(np.int64),
        )

    @property
    def n_users(self) -> int:
        """Number of users, including users without interactions."""
        return len(self.offsets) - 1

    @cached_property
    def _index(self) -> TimeIndex:
        return TimeIndex(self.offsets, self.times, self.until)

    def count_before(self, users: ArrayLike, as_ofs: ArrayLike) -> Ints:
        """For each pair of user and time, return the number of the user's interactions strictly before the time,
        ``(B,)``."""
        starts, ends = self._index.before(users, as_ofs)
        return ends - starts

    def before(self, user: int, as_of: int, limit: int | None = None) -> tuple[Ints, Ints]:
        """Return items and times of the last ``limit`` interactions of a user strictly before ``as_of``, newest
        first."""
        starts, ends = self._index.before([user], [as_of])
        start, end = int(starts[0]), int(ends[0])
        if limit is not None:
            start = max(start, end - limit)
        return self.items[start:end][::-1].astype(np.int64), self.times[start:end][::-1].astype(np.int64)

    def before_batch(self, users: ArrayLike, as_ofs: ArrayLike, limit: int) -> tuple[Ints, Ints]:
        """For each pair of user and time, return the user's last ``limit`` interactions strictly before the time,
        newest first.

        Args:
            users: dense user ids, ``(B,)``.
            as_ofs: times in microseconds since the epoch, ``(B,)``.
            limit: largest number L of interactions per user.

        Returns:
            ``items (B, L)`` padded with -1 and ``times (B, L)`` padded with 0, both int64.
        """
        starts, ends = self._index.before(users, as_ofs)
        return self._around(ends[:, None], -np.arange(1, limit + 1), starts[:, None], ends[:, None])

    def after_batch(self, users: ArrayLike, as_ofs: ArrayLike, limit: int) -> tuple[Ints, Ints]:
        """For each pair of user and time, return the user's first ``limit`` interactions at or after the time, oldest
        first.

        The result has the same shapes and padding as the result of :meth:`before_batch`. It contains the future, so use it
        only for targets and oracles.
        """
        _, starts = self._index.before(users, as_ofs)
        return self._around(
            starts[:, None], np.arange(limit), starts[:, None], self.offsets[np.asarray(users, np.int64) + 1][:, None]
        )

    def _around(self, places: Ints, steps: Ints, starts: Ints, ends: Ints) -> tuple[Ints, Ints]:
        """Return the items and times at ``places (B, 1) + steps (L,)``; outside ``[starts, ends)``, -1 and 0."""
        out = np.full((len(places), len(steps)), -1, np.int64), np.zeros((len(places), len(steps)), np.int64)
        if len(self.items):
            for begin in range(0, len(places), BLOCK):
                block = slice(begin, begin + BLOCK)
                wanted = places[block] + steps
                inside = (wanted >= starts[block]) & (wanted < ends[block])
                np.copyto(out[0][block], self.items.take(wanted, mode="clip"), where=inside)
                np.copyto(out[1][block], self.times.take(wanted, mode="clip"), where=inside)
        return out

    def first_touches(self) -> History:
        """Return the history without repetitions: only interactions whose user had not interacted with the same item at
        an earlier time."""
        users = np.repeat(np.arange(self.n_users, dtype=np.int64), np.diff(self.offsets))
        items, times = np.asarray(self.items, np.int64), np.asarray(self.times, np.int64)
        fresh = untouched(users, items, times)
        offsets = np.concatenate([[0], np.cumsum(fresh)])[self.offsets]
        return History(offsets.astype(np.int64), items[fresh], times[fresh])

    def ranges(self, interactions: int) -> list[tuple[int, int]]:
        """Divide the users into ranges with about ``interactions`` interactions each; see :func:`even_ranges`."""
        return even_ranges(self.offsets, interactions)

    def part(self, first: int, last: int) -> History:
        """Return the history of the users ``[first, last)`` in memory, with these users numbered from 0."""
        start, end = int(self.offsets[first]), int(self.offsets[last])
        return History(
            self.offsets[first : last + 1] - start,
            np.array(self.items[start:end], np.int64),
            np.array(self.times[start:end], np.int64),
        )
