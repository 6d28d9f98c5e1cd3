"""K-means and nearest-centroid search for coders."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
TIE = 1e-12
"""Relative tolerance within which two squared distances count as equal."""
BLOCK = 8_000_000
"""Largest number of distances held in memory at once."""


def k_means(rows: Array, size: int, iterations: int, seed: int, most: int = 1024) -> Array:
    """Return centroids (size, w) float32 of rows (N, w). If there are at most ``size`` distinct rows, these are the
    centroids, and the last one is repeated.

    Args:
        rows: (N, w) vectors, at least one.
        size: number of centroids.
        iterations: number of rounds.
        seed: random seed of the initial centroids.
        most: largest number of rows used per centroid; if there are more rows, a random sample is used.
    """
    import faiss

    rows = np.ascontiguousarray(rows, dtype=np.float32)
    distinct = np.unique(rows, axis=0)
    if len(distinct) <= size:
        return np.asarray(distinct[np.minimum(np.arange(size), len(distinct) - 1)])
    means = faiss.Kmeans(
        rows.shape[1], size, niter=iterations, seed=seed, min_points_per_centroid=1, max_points_per_centroid=most
    )
    means.train(rows)
    return np.asarray(means.centroids)


def nearest(rows: Array, centroids: Array, factors: Array | None = None) -> Array:
    """Return the index (N,) int64 of the nearest centroid of each row. Ties within the tolerance go to the first
    centroid, so that the result does not depend on rounding errors.

    Args:
        rows: (N, w) vectors.
        centroids: (K, w) centroids.
        factors: (K,) positive factors by which the squared distances are multiplied; 1 by default.
    """
    centroids = np.asarray(centroids, np.float64)
    norms, size = (centroids**2).sum(axis=1), max(1, BLOCK // len(centroids))
    out = np.zeros(len(rows), np.int64)
    for start in range(0, len(rows), size):
        part = np.asarray(rows[start : start + size], np.float64)
        lengths = (part**2).sum(axis=1, keepdims=True)
        distances = norms - 2 * part @ centroids.T
        slack = TIE * (lengths + norms.max())
        if factors is not None:
            distances = (distances + lengths) * factors
            slack = slack * factors.max()
        out[start : start + size] = (distances <= distances.min(axis=1, keepdims=True) + slack).argmax(axis=1)
    return out


def means_of(rows: Array, codes: Array, centroids: Array) -> Array:
    """Return the mean (K, w) float32 of the rows (N, w) with each code; ``codes`` is (N,). A code without rows keeps
    its previous centroid."""
    counts = np.bincount(codes, minlength=len(centroids))
    order = np.argsort(codes, kind="stable")
    used = np.flatnonzero(counts)
    starts = np.concatenate([[0], np.cumsum(counts[used])[:-1]])
    out = np.array(centroids, dtype=np.float32)
    out[used] = np.add.reduceat(np.asarray(rows, np.float64)[order], starts, axis=0) / counts[used, None]
    return out
