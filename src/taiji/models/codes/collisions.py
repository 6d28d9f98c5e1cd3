"""Collisions: items with equal codes get distinct codes by an additional level (TIGER, arXiv 2305.05065).

With unique codes, a decoder trained on the codes can learn to distinguish all items. The level costs one more decoding
step for every item. The last code of an item depends on the popularity of other items, so codes are made unique only
once per fit.

The alternative is a trie whose leaves hold lists of items (:class:`~taiji.models.codes.trie.CodeTrie`). It needs no
further decoding step, but the model cannot learn to distinguish the items of one leaf: the probability of an item is
the probability of its leaf times the item's share of the leaf's popularity.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def unique_codes(codes: Array, popularity: Array | None = None) -> Array:
    """Return distinct codes (N, L + 1), or the given codes (N, L) if they are already distinct.

    Args:
        codes: (N, L).
        popularity: (N,); of the items with equal codes, the most popular gets 0 as its last code; ties are broken by
            item id. By default all items are equally popular.
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
    """Return codes (N, L + 1) of a later catalogue that keep their meaning: an item keeps its last code.

    Args:
        codes: (N, L).
        last: (N,) last code of each item; −1 for an item without one. It gets the smallest number that no item with
            equal codes has.
        popularity: (N,); of several items without a last code, the most popular gets the smallest number; ties are
            broken by item id.
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
