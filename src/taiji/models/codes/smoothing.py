"""Smoothing of item vectors over co-occurring items, so that codes reflect more than content (S²GR, arXiv
2601.18664)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from taiji.core.errors import InputError

Array = NDArray[Any]


def step_weights(alpha: float, steps: int) -> Array:
    """Return weights β (steps + 1,) that are proportional to (1 − α)^k for k = 0 … steps and sum to 1."""
    weights = (1.0 - alpha) ** np.arange(steps + 1)
    return np.asarray(weights / weights.sum())


def smoothed(vectors: Array, pairs: tuple[Array, Array, Array], *, alpha: float = 0.5, steps: int = 2) -> Array:
    """Return smoothed vectors Σ_k β_k H^k (N, d), with H⁰ = X, H^k = (1 − α) Â H^(k−1) + α X, and β from
    :func:`step_weights`.

    Each row of Â holds the pair weights of an item divided by their sum. An item without pairs, such as a new item,
    keeps its vector.

    Args:
        vectors: (N, d) item vectors X.
        pairs: item, other item, and weight > 0 of each pair, each (P,). Use pairs from the training log only, so that
            the test set does not leak into the codes.
        alpha: weight of an item's own vector, in (0, 1]; 1 returns the vectors unchanged.
        steps: largest number of steps, each from an item to a co-occurring item, over which vectors are averaged.

    Raises:
        InputError: alpha is outside (0, 1].
    """
    if not 0.0 < alpha <= 1.0:
        raise InputError(
            "The weight of content is out of range.", where="alpha", expected="above 0, at most 1", found=str(alpha)
        )
    base = np.asarray(vectors, np.float64)
    own, other, weight = pairs
    order = np.argsort(own, kind="stable")
    own, other, weight = np.asarray(own)[order], np.asarray(other)[order], np.asarray(weight, np.float64)[order]
    linked, starts = np.unique(own, return_index=True)
    share = weight / np.bincount(own, weight, minlength=len(base))[own]
    layer, total = base, np.zeros_like(base)
    for step, beta in enumerate(step_weights(alpha, steps)):
        if step:
            neighbours = layer.copy()
            if len(linked):
                neighbours[linked] = np.add.reduceat(share[:, None] * layer[other], starts, axis=0)
            layer = (1.0 - alpha) * neighbours + alpha * base
        total += beta * layer
    return total
