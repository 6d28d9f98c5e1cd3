"""Evaluation of intent sets against the next items: coverage, redundancy, retrieved slates, near-duplicates.

An intent set holds one vector for each of several things that a user may want next. Vectors are unit vectors or zero; a
zero row is a missing intent or item.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
NEAR = 0.8
"""Cosine above which an intent starts to count as a repetition."""
SAME_INTENT = 0.9
"""Cosine at or above which two intents are near-duplicates and count as one."""


def coverage(intents: Array, items: Array) -> Array:
    """Return the mean over the items of each item's largest cosine with any intent, clipped at 0 (facility location).

    Args:
        intents: (B, m, d).
        items: (B, N, d).

    Returns:
        (B,) in [0, 1]; 0 without an intent, NaN without an item.
    """
    best = np.clip(np.einsum("bmd,bnd->bnm", intents, items).max(axis=2, initial=0.0), 0.0, 1.0)
    there = _there(items)
    counts = there.sum(axis=1)
    total = np.where(there, best, 0.0).sum(axis=1, dtype=np.float64)
    return np.divide(total, counts, out=np.full(len(items), np.nan), where=counts > 0)


def redundancy(intents: Array, near: float = NEAR) -> Array:
    """Return how many intents of a set repeat an earlier one, as a share of all intents but the first.

    An intent's contribution rises linearly from 0 to 1 as its best cosine with an earlier one goes from ``near`` to
    1.

    Args:
        intents: (B, m, d).
        near: cosine at which repetition begins.

    Returns:
        (B,) in [0, 1]; 0 for fewer than two intents.
    """
    width, there = intents.shape[1], _there(intents)
    cosine = np.einsum("bmd,bnd->bmn", intents, intents).astype(np.float64)
    earlier = np.tril(np.ones((width, width), dtype=bool), -1)
    nearest = np.where(earlier, cosine, -1.0).max(axis=2, initial=-1.0)
    repeats = np.where(there, np.clip((nearest - near) / (1.0 - near), 0.0, 1.0), 0.0).sum(axis=1)
    return np.asarray(repeats / np.maximum(there.sum(axis=1) - 1, 1), dtype=np.float64)


def best_cosines(intents: Array, candidates: Array) -> Array:
    """Return the largest cosine (B, C) of each candidate (B, C, d) with any intent (B, m, d); −1 where there is no
    intent."""
    cosine = np.einsum("bmd,bcd->bcm", intents, candidates).astype(np.float64)
    return np.asarray(np.where(_there(intents)[:, None, :], cosine, -1.0).max(axis=2, initial=-1.0))


def slate_values(scores: Array, values: Array, size: int) -> Array:
    """Return the mean value of the ``size`` candidates with the highest scores, scaled so that the worst slate of that
    size has 0 and the best has 1.

    Args:
        scores: (B, C), −inf at missing candidates; ties go to the earlier one.
        values: (B, C) value of each candidate, NaN at missing candidates.
        size: slate size; all candidates if there are fewer.

    Returns:
        (B,), 0 where all slates have the same value.
    """
    there = np.isfinite(values)
    takes = np.arange(scores.shape[1])[None] < np.minimum(size, there.sum(axis=1))[:, None]
    order = np.argsort(-np.where(there, scores, -np.inf), axis=1, kind="stable")
    chosen = _mean(np.take_along_axis(values, order, axis=1), takes)
    ascending = np.sort(values, axis=1)  # NaN last
    worst = _mean(ascending, takes)
    best = _mean(-np.sort(-values, axis=1), takes)
    return np.divide(chosen - worst, best - worst, out=np.zeros(len(values)), where=best > worst).clip(0.0, 1.0)


def merged(vectors: Array, weights: Array, same: float = SAME_INTENT) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Merge near-duplicates: a vector whose cosine with a kept vector is at least ``same`` is dropped, and its weight
    is added to the first such vector.

    Args:
        vectors: (n, d) unit vectors in order of precedence; zero rows are left out.
        weights: (n,) weights of the vectors.
        same: cosine at or above which two vectors are merged.

    Returns:
        indices (k,) of the kept vectors and their weights (k,), by descending weight, then index.
    """
    kept: list[int] = []
    total: list[float] = []
    for place in np.flatnonzero(np.abs(vectors).sum(axis=1) > 0):
        cosines = vectors[kept] @ vectors[place] if kept else np.zeros(0)
        first = int(np.argmax(cosines >= same)) if (cosines >= same).any() else -1
        if first >= 0:
            total[first] += float(weights[place])
        else:
            kept.append(int(place))
            total.append(float(weights[place]))
    order = sorted(range(len(kept)), key=lambda number: (-total[number], kept[number]))
    return np.array([kept[n] for n in order], dtype=np.int64), np.array([total[n] for n in order], dtype=np.float64)


def _there(vectors: Array) -> Array:
    return np.asarray(np.abs(vectors).sum(axis=2) > 0)


def _mean(values: Array, takes: Array) -> Array:
    counts = np.maximum(takes.sum(axis=1), 1)
    return np.asarray(np.where(takes, values, 0.0).sum(axis=1) / counts, dtype=np.float64)
