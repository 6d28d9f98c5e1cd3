"""Items with equal codes: distinguished by a further level, or left together in a leaf.

The choice here is the further level (TIGER, 2305.05065): every item has a unique code, and a decoder trained on it can learn to distinguish items. It
costs a decoding step for every item, and an item's last code changes with the
popularity of others, so codes are made unique once per fit. The alternative costs no step but learns nothing: a leaf holds a list, and an item's
probability is the leaf's probability times the item's share of the leaf's popularity (:attr:`CodeTrie.log_shares`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def unique_codes(codes: Array, popularity: Array | None = None) -> Array:
    """Return distinct codes (N, L + 1); the given (N, L) if they are distinct already.

    Args:
        codes: (N, L). popularity: (N,); among equal codes the most popular item gets 0, ties by item number; default: equal.
    """
    count = len(codes)
    weight = np.zeros(count) if popularity is None else np.asarray(popularity, np.float64)
    order = np.lexsort((np.arange(count), -weight, *codes.T[::-1]))
    fresh = np.ones(count, bool)
    fresh[1:] = (codes[order[1:]] != codes[order[:-1]]).any(axis=1)
    if fresh.all():
        return codes
    rank = np.empty(count, codes.dtype)
    starts = np.flatnonzero(fresh)
    rank[order] = np.arange(count) - np.repeat(starts, np.diff(np.append(starts, count)))
    return np.concatenate([codes, rank[:, None]], axis=1)
