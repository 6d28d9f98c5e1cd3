"""Interactions per user in time order, and what a user had done strictly before a time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class History:
    """Interactions (events with a click) as compressed rows.

    Attributes:
        offsets: ``(n_users + 1,)``; user ``u`` owns the slice ``offsets[u]:offsets[u + 1]``.
        items: ``(n,)`` dense item ids, in time order within a user (ties in the order of the events).
        times: ``(n,)`` microseconds since the epoch.
    """

    offsets: Ints
    items: Ints
    times: Ints

    @classmethod
    def from_events(cls, events: pl.DataFrame, n_users: int) -> History:
        """Build from a dataset's events, which are in time order: columns ``user``, ``item``, ``time``, ``click``."""
        clicks = events.filter(pl.col("click") == 1)
        users = clicks["user"].to_numpy()
        order = np.argsort(users, kind="stable")
        offsets = np.zeros(n_users + 1, np.int64)
        np.cumsum(np.bincount(users, minlength=n_users), out=offsets[1:])
        return cls(offsets, clicks["item"].to_numpy()[order].astype(np.int64), clicks["time"].to_numpy()[order].astype(np.int64))

    @property
    def n_users(self) -> int:
        """How many users there are, those without an interaction included."""
        return len(self.offsets) - 1

    @cached_property
    def _clock(self) -> Ints:
        """Every time that occurs, once, ascending."""
        return np.unique(self.times)

    @cached_property
    def _keys(self) -> Ints:
        """``(n,)`` ascending: user and rank of the time in one number, so that one search finds a place in any user's slice."""
        users = np.repeat(np.arange(self.n_users, dtype=np.int64), np.diff(self.offsets))
        return users * (len(self._clock) + 1) + np.searchsorted(self._clock, self.times)

    def _ends(self, users: ArrayLike, as_ofs: ArrayLike) -> tuple[Ints, Ints]:
        """First and one-past-last position of each user's interactions strictly before each time."""
        users, as_ofs = np.asarray(users, np.int64), np.asarray(as_ofs, np.int64)
        if users.size and (users.min() < 0 or users.max() >= self.n_users):
            raise IndexError(f"user ids must lie in [0, {self.n_users}), found {users.min()} to {users.max()}")
        ranks = np.searchsorted(self._clock, as_ofs, side="left")
        return self.offsets[users], np.searchsorted(self._keys, users * (len(self._clock) + 1) + ranks, side="left")

    def count_before(self, users: ArrayLike, as_ofs: ArrayLike) -> Ints:
        """Interactions of each user strictly before each time: ``(B,)``."""
        starts, ends = self._ends(users, as_ofs)
        return ends - starts

    def before(self, user: int, as_of: int, limit: int | None = None) -> tuple[Ints, Ints]:
        """One user's last ``limit`` interactions strictly before ``as_of``: ``(items, times)``, newest first."""
        starts, ends = self._ends([user], [as_of])
        start, end = int(starts[0]), int(ends[0])
        if limit is not None:
            start = max(start, end - limit)
        return self.items[start:end][::-1], self.times[start:end][::-1]

    def before_batch(self, users: ArrayLike, as_ofs: ArrayLike, limit: int) -> tuple[Ints, Ints]:
        """The last ``limit`` interactions of each user strictly before each time, newest first.

        Args:
            users: ``(B,)`` dense user ids.
            as_ofs: ``(B,)`` microseconds since the epoch.
            limit: L.

        Returns:
            ``items (B, L)`` padded with -1 and ``times (B, L)`` padded with 0, both int64.
        """
        starts, ends = self._ends(users, as_ofs)
        places = ends[:, None] - 1 - np.arange(limit, dtype=np.int64)
        there = places >= starts[:, None]
        if not len(self.items):
            return np.full(places.shape, -1, np.int64), np.zeros(places.shape, np.int64)
        np.maximum(places, 0, out=places)
        return np.where(there, self.items[places], -1), np.where(there, self.times[places], 0)
