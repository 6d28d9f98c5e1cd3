"""Matching of items with users of limited capacity, by an auction or by letting the items choose in turn."""

from __future__ import annotations

import heapq
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taiji.core.errors import InputError

Array = NDArray[Any]


def auction(values: Array, users: Array, room: Array, per_item: int, tolerance: float) -> Array:
    """Return a mask (I, K) of matched candidates. The total value of the matches is at most ``tolerance`` per match
    below the maximum.

    Items bid for users in an ascending auction (Bertsekas & Castañón 1989). The net value of a match is its value minus
    the user's price. An item bids for the users with the highest net values. Its offer to a user is the value of the
    match, minus the net value of the item's best alternative, plus ε. A user over capacity drops the lowest offer. The
    price of a user at capacity is the lowest remaining offer. The price of any other user is 0.

    Args:
        values: (I, K) value of matching each item with each of its candidates; only candidates with a value above 0 are
            matched.
        users: (I, K) candidate users of each item, without repetitions within an item, padded with −1.
        room: (U,) remaining capacity of each user, in items.
        per_item: largest number of users per item.
        tolerance: ε, above 0. With integer values and ε below 1 / (number of matches), the result is an exact optimum.

    Raises:
        InputError: the arrays do not match, or the tolerance is not above 0.
    """
    _check(values, users, room)
    if not tolerance > 0:
        raise InputError(
            "The tolerance of an auction must be positive.", where="tolerance", expected="above 0", found=str(tolerance)
        )
    wanted = (users >= 0) & (values > 0) & (room[np.maximum(users, 0)] > 0)
    held = np.zeros(users.shape, dtype=bool)
    price = np.zeros(len(room))
    offers: list[list[tuple[float, int, int]]] = [[] for _ in room]
    waiting = deque(range(len(users)))
    while waiting:
        item = waiting.popleft()
        net = np.where(wanted[item] & ~held[item], values[item] - price[users[item]], 0.0)
        free = per_item - int(held[item].sum())
        order = np.argsort(-net, kind="stable")
        order = order[net[order] > 0]
        if free <= 0 or not len(order):
            continue
        alternative = float(net[order[free]]) if len(order) > free else 0.0
        for place in order[:free]:
            user = int(users[item, place])
            heapq.heappush(offers[user], (float(values[item, place]) - alternative + tolerance, item, int(place)))
            held[item, place] = True
            if len(offers[user]) > room[user]:
                _, loser, lost = heapq.heappop(offers[user])
                held[loser, lost] = False
                waiting.append(loser)
            if len(offers[user]) == room[user]:
                price[user] = offers[user][0][0]
    return held


def in_turn(values: Array, users: Array, room: Array, per_item: int, order: Array) -> Array:
    """Return a mask (I, K) of matched candidates. The items choose one after the other. Each item takes its best users
    among those with remaining capacity.

    Args:
        values, users, room, per_item: as for :func:`auction`.
        order: (I,) row indices of the items in the order in which they choose; a random order favours no item on
            average.
    """
    _check(values, users, room)
    left, held = np.array(room), np.zeros(users.shape, dtype=bool)
    for item in order:
        fine = (users[item] >= 0) & (values[item] > 0) & (left[np.maximum(users[item], 0)] > 0)
        places = np.argsort(np.where(fine, -values[item], np.inf), kind="stable")[: min(per_item, int(fine.sum()))]
        held[item, places] = True
        left[users[item, places]] -= 1
    return held


def _check(values: Array, users: Array, room: Array) -> None:
    ids = np.sort(users, axis=1)
    twice = (ids[:, 1:] == ids[:, :-1]) & (ids[:, 1:] >= 0)
    if (
        values.shape != users.shape
        or twice.any()
        or (users >= len(room)).any()
        or not np.isfinite(values[users >= 0]).all()
    ):
        raise InputError(
            "The candidates of a matching are malformed.",
            where="values, users, room",
            expected="finite values (I, K); users (I, K) below the number of capacities, different within each row",
            found=f"shapes {values.shape} and {users.shape}, capacities of length {len(room)}, {int(twice.sum())} repeated users",
        )
