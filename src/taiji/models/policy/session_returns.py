"""Order and returns of logged sessions, computed without a loop over rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from taiji.core.errors import InputError

Array = NDArray[Any]
NO_ROW = -1
"""Index that stands for no row; it marks the last row of a session."""


def followers(session: Array, time: Array) -> Array:
    """Return the index of the next row of the session for each row, (n,); :data:`NO_ROW` for the last row of a session.

    Args:
        session: (n,) session of each row.
        time: (n,) time of each row. Rows of a session with equal times keep the given order.

    Raises:
        InputError: the numbers of times and sessions differ.
    """
    if session.shape != time.shape or session.ndim != 1:
        raise InputError(
            "The rows of the sessions do not have one time each.",
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
    """Return the discounted returns G (n,) float64: G_t = r_t + d_t · G_s, where s is the row after t.

    They are computed by doubling, in O(n log L) for sessions of L rows.

    Args:
        rewards: (n,) rewards r of the rows.
        after: (n,) index of the next row, from :func:`followers`.
        discount: discount d from a row to the next row, a number or (n,). It may for example be γ to the power of the
            days in between.

    Raises:
        InputError: a reward or discount is not finite, or rows follow one another in a cycle.
    """
    total = np.array(rewards, dtype=np.float64)
    weight = np.array(np.broadcast_to(np.asarray(discount, dtype=np.float64), total.shape))
    if not (np.isfinite(total).all() and np.isfinite(weight[after >= 0]).all()):
        raise InputError(
            "The returns cannot be computed.",
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
        # All right-hand sides are read before anything is written. Before round k (from 0), each row holds the
        # discounted sum of the rewards of 2^k rows, beginning with its own.
        total[rows], weight[rows], ahead[rows] = (
            total[rows] + weight[rows] * total[to],
            weight[rows] * weight[to],
            ahead[to],
        )
    raise InputError(
        "Rows follow one another in a cycle.",
        where="after",
        expected=f"sessions that end, with {NO_ROW} in their last row",
        found=f"{len(rows)} rows without an end",
    )
