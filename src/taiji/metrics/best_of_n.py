"""Expected gain of choosing the best-scored of n draws, and its upper bound."""

from __future__ import annotations

from math import erf, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
NODES = 200
"""Nodes of the quadrature of :func:`normal_maximum`."""


def value_of_best(values: Array, scores: Array, n: int) -> float:
    """Return the expected value of the best-scored of n uniform draws with replacement.

    The value is exact: the best of n draws is among the k lowest of m scores with probability (k/m)ⁿ, and items with
    tied scores are equally likely.

    Args:
        values: (m,) true values.
        scores: (m,) scores that decide the choice.
        n: number of draws.
    """
    values, scores = np.asarray(values, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    _, group, counts = np.unique(scores, return_inverse=True, return_counts=True)
    upper = counts.cumsum() / len(scores)
    chance = np.diff(np.concatenate([[0.0], upper**n]))
    means = np.bincount(group, weights=values) / counts
    return float(chance @ means)


def gain_of_best(values: Array, scores: Array, n: int) -> float:
    """Return :func:`value_of_best` minus the mean value: the gain of the choice over a random draw."""
    return value_of_best(values, scores, n) - float(np.mean(values))


def gain_bound(values: Array, n: int) -> float:
    """Return E[max of n] − E[mean], the gain of choosing by the true values: the upper bound for any score."""
    return gain_of_best(values, values, n)


def normal_maximum(n: int) -> float:
    """Return E[max of n independent standard normals], by Gauss–Legendre quadrature of ∫ 1 − F(z)ⁿ − F(−z)ⁿ over z ≥
    0."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    below = np.array([0.5 * (1.0 + erf(z / sqrt(2.0))) for z in 6.0 * (nodes + 1.0)])
    return float(6.0 * weights @ (1.0 - below**n - (1.0 - below) ** n))
