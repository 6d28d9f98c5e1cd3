"""Resolution of collisions: an additional level gives items with equal codes distinct codes (TIGER, arXiv 2305.05065).

With unique codes, a decoder trained on the codes can learn to distinguish all items. The additional level costs one
more decoding step for every item. The last code of an item depends on the popularity of other items. Therefore, codes
are made unique only once per fit.

The alternative is a trie whose leaves hold lists of items (:class:`~taiji.models.codes.trie.CodeTrie`). It needs no
further decoding step, but the model cannot learn to distinguish the items of a leaf. The probability of an item is the
probability of its leaf times the item's share of the leaf's popularity.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def unique_codes(codes: Array, popularity: Array | None = None) -> Array:
    """Return distinct codes (N, L + 1), or the given codes (N, L) if these are already distinct.

    Args:
        codes: (N, L) codes of all items.
        popularity: (N,) popularity of each item. Among items with equal codes, the most popular one gets 0 as its last
            code, the next one 1, and so on; ties go to the smaller item id. By default, all items are equally popular.
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


def extended_codes(codes: Array, last: Array, popularity: Array) -> Array:
    """Return distinct codes (N, L + 1) of a later catalogue, in which an item that has a last code keeps it.

    Args:
        codes: (N, L) codes of all items.
        last: (N,) last code of each item, or −1. An item with −1 gets the smallest last code that no other item with
            equal codes has.
        popularity: (N,) popularity of each item. Among items with equal codes and without a last code, the most popular
            one gets the smallest number; ties go to the smaller item id.
    """
    taken: defaultdict[bytes, set[int]] = defaultdict(set)
    keys = [row.tobytes() for row in np.ascontiguousarray(codes)]
    last = np.array(last, codes.dtype)
    for row in np.flatnonzero(last >= 0):
        taken[keys[row]].add(int(last[row]))
    new = np.flatnonzero(last < 0)
    smallest: defaultdict[bytes, int] = defaultdict(int)
    for row in new[np.argsort(-np.asarray(popularity, np.float64)[new], kind="stable")]:
        number = smallest[keys[row]]
        while number in taken[keys[row]]:
            number += 1
        last[row], smallest[keys[row]] = number, number + 1
    return np.concatenate([codes, last[:, None]], axis=1)
