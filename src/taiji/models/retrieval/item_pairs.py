"""Pairs of related items for the alignment of embeddings, and an evaluation of item vectors on such pairs that controls
for popularity."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from taiji.models.retrieval.vector_index import VectorIndex

Array = NDArray[Any]


def nearest_pairs(vectors: Array, k: int) -> tuple[Array, Array, Array]:
    """Return the pairs of each item with its ``k`` nearest items by cosine: item, other item and cosine, each (P,).

    Args:
        vectors: (N, d) item vectors, such as those of :class:`taiji.models.retrieval.two_towers.TwoTowers`; an item
            with a vector of zeros has no pairs.
        k: number of neighbours per item.
    """
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    known = np.flatnonzero(lengths[:, 0] > 0)
    unit = np.asarray(vectors[known] / lengths[known], np.float32)
    index = VectorIndex(unit.shape[1])
    index.add(known, unit)
    found, _ = index.search(unit, min(k + 1, len(known)))
    row, place = np.nonzero((found >= 0) & (found != known[:, None]))
    order = np.cumsum((found >= 0) & (found != known[:, None]), axis=1)
    kept = order[row, place] <= k
    row, other = row[kept], found[row[kept], place[kept]]
    back = np.full(len(vectors), -1)
    back[known] = np.arange(len(known))
    return known[row], other, np.einsum("pd,pd->p", unit[row], unit[back[other]], dtype=np.float64)


def distinct_pairs(*sources: tuple[Array, Array, Array]) -> tuple[Array, Array]:
    """Return the distinct unordered pairs in all sources as two arrays (P,), with the smaller item of each pair
    first."""
    first = np.concatenate([source[0] for source in sources])
    second = np.concatenate([source[1] for source in sources])
    low, high = np.minimum(first, second), np.maximum(first, second)
    pairs = np.unique(np.stack([low, high], axis=1)[low != high], axis=0)
    return pairs[:, 0], pairs[:, 1]


def matched_items(first: Array, second: Array, popularity: Array, seed: int = 0) -> Array:
    """Return, for each pair, an item (P,) about as popular as ``second`` that is neither ``first`` nor ``second``.

    All items are sorted by popularity, with ties in random order. Of the two items before ``second`` and the two after
    it, the one closest in popularity is returned. A model that has learnt more than popularity should prefer ``second``
    to this item.

    Args:
        first, second: (P,) dense item ids.
        popularity: (N,) number of interactions of each item, for at least 3 items.
        seed: random seed of the order of ties.
    """
    order = np.lexsort((np.random.default_rng(seed).random(len(popularity)), popularity))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    out = np.full(len(first), -1, np.int64)
    distance = np.full(len(first), np.inf)
    for step in (1, -1, 2, -2):
        place = rank[second] + step
        there = (place >= 0) & (place < len(order))
        item = order[place.clip(0, len(order) - 1)]
        away = np.abs(popularity[item].astype(np.float64) - popularity[second])
        better = there & (item != first) & (away < distance)
        out[better], distance[better] = item[better], away[better]
    return out


def preferred(vectors: Array, first: Array, second: Array, other: Array) -> float:
    """Return the share of pairs with cos(``first``, ``second``) > cos(``first``, ``other``). A tie counts one half.
    Without pairs, the result is NaN."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    ours, theirs = ((unit[first] * unit[items]).sum(axis=1) for items in (second, other))
    return float(((ours > theirs) + 0.5 * (ours == theirs)).mean()) if len(first) else float("nan")
