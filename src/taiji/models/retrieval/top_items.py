"""Selection of the best items of each request, with ties resolved by position."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taiji.core.component import NO_ITEM, Slate

Array = NDArray[Any]


def top_items(scores: Array, k: int) -> Slate:
    """Return the ``k`` items of each request with the highest scores, best first.

    Args:
        scores: (B, N), −inf for items that must not be retrieved; ties go to the smaller item index.
        k: number of items per request.

    Returns:
        Slate of width min(k, N), padded if a request has fewer items above −inf.
    """
    rows, count = scores.shape
    k = min(k, count)
    if not (rows and k):
        return Slate(np.zeros((rows, k), np.int64))
    bound = np.partition(scores, count - k, axis=1)[:, count - k, None]
    above = scores > bound
    level = scores == bound
    room = k - above.sum(axis=1, keepdims=True)
    chosen = above | (level & (np.cumsum(level, axis=1) <= room))
    items = np.nonzero(chosen)[1].reshape(rows, k)  # k per row, in ascending order
    found = np.take_along_axis(scores, items, axis=1)
    order = np.argsort(-found, axis=1, kind="stable")
    items, found = np.take_along_axis(items, order, axis=1), np.take_along_axis(found, order, axis=1)
    there = found > -np.inf
    return Slate(np.where(there, items, NO_ITEM), np.where(there, found, 0.0))


def best_of(slate: Slate, scores: Array, k: int) -> Slate:
    """Return the ``k`` items of the slate with the highest ``scores`` (B, M), best first. These replace the slate's own
    scores.

    Ties go to the earlier position in the slate. Items with a score of −inf are left out.
    """
    best = top_items(scores, k)
    return replace(slate.take(np.where(best.mask, best.items, 0)).where(best.mask), scores=best.scores)
