"""Matches of new items with users of limited capacity. A match raises the item's score for the user."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from taiji.core.errors import InputError
from taiji.data.history import rows_and_places
from taiji.models.retrieval.auction import auction, in_turn

Array = NDArray[Any]


class Matches:
    """Current pairs of a matched item and user, each with the value of the match (its worth).

    Args:
        users: number of users.
        capacity: largest number of items per user.

    Attributes:
        user, item, worth: arrays (P,) with one entry per pair, sorted by user and then by item.
    """

    def __init__(self, users: int, capacity: int) -> None:
        self.users, self.capacity = users, capacity
        self.user, self.item, self.worth = np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)

    @property
    def room(self) -> Array:
        """Remaining capacity of each user, (U,)."""
        return self.capacity - np.bincount(self.user, minlength=self.users)

    def add(
        self,
        items: Array,
        values: Array,
        available: Array,
        *,
        per_item: int,
        candidates: int = 200,
        order: Literal["auction", "random"] = "auction",
        tolerance: float = 0.01,
        seed: int = 0,
    ) -> int:
        """Match items with users who have remaining capacity, and return the number of added pairs. Existing pairs are
        kept.

        Args:
            items: (I,) distinct items.
            values: (I, U) value of each pair; only pairs with a value above 0 are matched.
            available: (U,) bool, True for users who may be matched.
            per_item: largest number of users per item.
            candidates: largest number of candidate users per item; the users with the highest values are kept.
            order: ``auction`` to maximise the total value by :func:`taiji.models.retrieval.auction.auction`; ``random``
                to let items choose one after the other in random order.
            tolerance: largest loss of value per match that the auction accepts, above 0.
            seed: random seed of the random order.

        Raises:
            InputError: items are repeated, or the values have a different shape.
        """
        if values.shape != (len(items), self.users) or len(np.unique(items)) != len(items):
            raise InputError(
                "The values do not match the items and users.",
                where="items, values",
                expected=f"distinct items, and values ({len(items)}, {self.users})",
                found=f"{len(np.unique(items))} distinct items, values {values.shape}",
            )
        room = self.room
        values = np.where(available & (room > 0), values, 0.0)
        known = np.isin(self.item, items)
        order_of = np.argsort(items)
        values[order_of[np.searchsorted(items, self.item[known], sorter=order_of)], self.user[known]] = 0.0
        width = min(candidates, self.users)
        users = np.argsort(-values, axis=1, kind="stable")[:, :width]
        worth = np.take_along_axis(values, users, axis=1)
        if order == "auction":
            held = auction(worth, users, room, per_item, tolerance)
        else:
            turn = np.random.default_rng(seed).permutation(len(items))
            held = in_turn(worth, users, room, per_item, turn)
        row, place = np.nonzero(held)
        self.put(
            np.concatenate([self.user, users[row, place]]),
            np.concatenate([self.item, np.asarray(items)[row]]),
            np.concatenate([self.worth, worth[row, place]]),
        )
        return len(row)

    def put(self, user: Array, item: Array, worth: Array) -> None:
        """Replace the current pairs by the given ones (P,).

        Raises:
            InputError: a user has more items than the capacity.
        """
        order = np.lexsort((item, user))
        self.user, self.item, self.worth = user[order].astype(np.int64), item[order].astype(np.int64), worth[order]
        if (self.room < 0).any():
            raise InputError(
                "A user is matched with more items than the capacity.",
                where="matches",
                expected=f"at most {self.capacity}",
                found=str(self.capacity - int(self.room.min())),
            )

    def release(self, users: Array, items: Array) -> None:
        """Remove pairs (n,), for example after delivery or when their item leaves the catalogue. Unknown pairs are
        ignored."""
        users, items = np.asarray(users), np.asarray(items)
        known = (users >= 0) & (users < self.users)  # a user id out of range could give the key of an existing pair
        gone = np.isin(self._keys(self.user, self.item), self._keys(users[known], items[known]))
        self.put(self.user[~gone], self.item[~gone], self.worth[~gone])

    def of(self, users: Array) -> tuple[Array, Array, Array]:
        """Return all n matches of ``users`` (B,): their positions in ``users``, their items, and their worth, each
        (n,).

        A negative user id has no matches.
        """
        first = np.searchsorted(self.user, users)
        row, place = rows_and_places(np.searchsorted(self.user, users, side="right") - first)
        at = first[row] + place
        return row, self.item[at], self.worth[at]

    def _keys(self, users: Array, items: Array) -> Array:
        return items.astype(np.int64) * self.users + users
