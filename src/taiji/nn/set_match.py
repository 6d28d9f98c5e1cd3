"""Pure functions that compute how well candidates agree with a set of vectors, from the cosines between them.

The first axis of the cosines runs over the set. Their shape is (L, N), or (L, R, M) if each request has its own
history. Thus, each step over the set is one operation on all candidates. The result for a candidate does not depend on
the other candidates, to the last bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
HISTORY_MATCHES = ("mean", "max", "top3", "last", "recent")
"""Names of the values of :func:`history_match`."""
SET_MATCHES = ("max", "mean", "soft_max")
"""Names of the values of :func:`weighted_match`."""
RECENT_DECAY = 0.8
"""Decay of the weights in ``recent``: the weight of an interaction relative to the weight of the next newer
interaction."""


def history_match(cosines: Array, known: Array) -> Array:
    """Return the five :data:`HISTORY_MATCHES` (5, R * M) float32 of each request's M candidates with the request's
    history. They are 0 if no entry of the history has a vector.

    Args:
        cosines: (L, R, M) float32 cosines of the history's entries and the candidates, newest entry first, 0 where
            unknown.
        known: (L, R) bool, True for entries that have a vector.
    """
    length, requests, width = cosines.shape
    out = np.zeros((len(HISTORY_MATCHES), requests * width), dtype=np.float32)
    if not length:
        return out
    flat = cosines.reshape(length, -1)
    decay = RECENT_DECAY ** np.arange(length, dtype=np.float32)
    count = np.repeat(known.sum(axis=0), width)
    mass = np.repeat(_sum(known * decay[:, None]), width)
    out[0] = _sum(flat) / np.maximum(count, 1)
    # Cosines are at least −1, so unknown entries sort last.
    lowered = flat if known.all() else np.where(known[:, :, None], cosines, np.float32(-2)).reshape(length, -1)
    best = np.where(count > np.arange(3)[:, None], top_three(lowered), np.float32(0))
    out[1] = best[0]
    out[2] = _sum(best) / np.maximum(np.minimum(count, 3), 1)
    out[3] = flat[0]
    out[4] = np.divide(_sum(flat, decay), mass, out=np.zeros_like(mass), where=mass > 0)
    return out


def weighted_match(cosines: Array, weights: Array, temperature: float = 0.1) -> Array:
    """Return the three :data:`SET_MATCHES` (3, N) float32 of N candidates, each with its own weighted set. They are 0
    for an empty set.

    ``soft_max`` is ``τ log Σ w exp(cosine / τ)``, with the weights scaled to sum to 1. It lies between the mean and the
    maximum.

    Args:
        cosines: (L, N) cosines of the sets' vectors and the candidates.
        weights: (L, N) weights, at least 0; entries of weight 0 are ignored.
        temperature: τ > 0.
    """
    out = np.zeros((len(SET_MATCHES), cosines.shape[1]), dtype=np.float32)
    there = weights > 0
    if not len(cosines):
        return out
    filled = there.any(axis=0)
    out[0] = np.where(filled, np.where(there, cosines, -2.0).max(axis=0), 0.0)
    out[1] = weighted_mean(cosines, weights)
    spread = weighted_mean(np.exp((np.where(there, cosines, -2.0) - out[0]) / temperature), weights)
    out[2] = np.where(filled, out[0] + temperature * np.log(np.where(filled, spread, 1.0)), 0.0)
    return out


def weighted_mean(values: Array, weights: Array) -> Array:
    """Return the weighted means Σ w x / Σ w (N,) float32 over the first axis of values x (L, N) and weights w (L, N); 0
    where all weights are 0."""
    mass = _sum(weights)
    return np.divide(_sum(values * weights), mass, out=np.zeros_like(mass), where=mass > 0)


def top_three(values: Array) -> Array:
    """Return the three largest values (3, N) of each column of ``values`` (L, N) float32, largest first, padded with
    −2."""
    first, second, third = best = np.full((3, values.shape[1]), -2, dtype=np.float32)
    lower, lowest = np.empty_like(first), np.empty_like(first)
    for row in values:
        np.minimum(first, row, out=lower)
        np.maximum(first, row, out=first)
        np.minimum(second, lower, out=lowest)
        np.maximum(second, lower, out=second)
        np.maximum(third, lowest, out=third)
    return best


def _sum(values: Array, weights: Array | None = None) -> Array:
    """Return the sum (N,) float32 over the rows of ``values`` (L, N), added in row order and optionally weighted by
    ``weights`` (L,)."""
    total = np.zeros(values.shape[1], dtype=np.float32)
    if weights is None:
        for row in values:
            total += row
        return total
    part = np.empty_like(total)
    for row, weight in zip(values, weights):
        np.multiply(row, weight, out=part)
        total += part
    return total
