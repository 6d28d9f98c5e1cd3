"""Order and returns of logged sessions, without a loop over rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from taiji.core.errors import InputError

Array = NDArray[Any]
NO_ROW = -1
"""Follower of a row that ends its session."""


def followers(session: Array, time: Array) -> Array:
    """Return each row's next one in its session (n,), or :data:`NO_ROW`; rows of one time follow in the order given.

    Raises:
        InputError: not as many times as sessions.
    """
    if session.shape != time.shape or session.ndim != 1:
        raise InputError(
            "Rows of sessions need one time each.",
            where="time",
            expected=f"shape {session.shape}, of one axis",
            found=f"shape {time.shape}",
        )
    order = np.lexsort((np.arange(len(time)), time, session))
    after = np.full(len(session), NO_ROW, dtype=np.int64)
    same = session[order[1:]] == session[order[:-1]]
    after[order[:-1][same]] = order[1:][same]
    return after


def returns(rewards: Array, after: Array, discount: float | Array) -> Array:
    """Return G (n,) float64 with G_t = r_t + d_t · G of the row after t, by doubling: O(n log L) for sessions of L rows.

    Args:
        rewards: (n,). after: (n,) of :func:`followers`. discount: from a row to the one after it, one number or (n,), as γ to the days between.

    Raises:
        InputError: a reward or discount that is not finite, or rows that follow one another in a circle.
    """
    total = np.array(rewards, dtype=np.float64)
    weight = np.array(np.broadcast_to(np.asarray(discount, dtype=np.float64), total.shape))
    if not (np.isfinite(total).all() and np.isfinite(weight[after >= 0]).all()):
        raise InputError(
            "Returns cannot be summed up.",
            where="rewards, discount",
            expected="finite numbers",
            found=f"{int((~np.isfinite(total)).sum())} rewards and {int((~np.isfinite(weight[after >= 0])).sum())} discounts that are not",
        )
    ahead = np.array(after)
    for _ in range(len(total).bit_length() + 1):
        rows = np.flatnonzero(ahead >= 0)
        if not len(rows):
            return total
        to = ahead[rows]
        # All on the right is read before anything is written: each row has the sum of the next 2^k rewards.
        total[rows], weight[rows], ahead[rows] = (
            total[rows] + weight[rows] * total[to],
            weight[rows] * weight[to],
            ahead[to],
        )
    raise InputError(
        "Rows follow one another in a circle.",
        where="after",
        expected=f"sessions that end, with {NO_ROW} at their last row",
        found=f"{len(rows)} rows without an end",
    )
