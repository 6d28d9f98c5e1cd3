"""Bradley–Terry model of comparisons: the first alternative is preferred to the second with probability
σ(r(first) − r(second)).

The score r is linear in the features, r = x·β, so the penalised likelihood has a single maximum, which Newton's method
finds. Scores are determined only up to an additive constant, because comparisons reveal only differences of scores.
Source: Bradley and Terry, *Biometrika* 1952.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from taiji.core.errors import InputError

Array = NDArray[Any]
STEPS = 60
"""Largest number of Newton steps."""
TOLERANCE = 1e-9
"""The fit stops when no entry of the gradient exceeds this value times max(total weight of the pairs, 1) in absolute
value."""


def preferred(differences: Array) -> Array:
    """Return the probabilities σ(d) (P,) that the first alternative is preferred, for differences d (P,) of scores,
    first minus second."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * np.asarray(differences, dtype=np.float64))))


def pair_losses(differences: Array) -> Array:
    """Return the losses −log σ(d) (P,) for differences d (P,) of scores, winner minus loser."""
    return np.logaddexp(0.0, -np.asarray(differences, dtype=np.float64))


def fit_bradley_terry(differences: Array, ridge: Array, weights: Array | None = None) -> Array:
    """Return the coefficients β (d,) that minimise −Σ w · log σ(x·β) + ½ Σ ridge · β².

    Args:
        differences: (P, d) features x of each pair: those of the winner minus those of the loser.
        ridge: (d,) penalties, each above 0. Without penalties, the likelihood of separable comparisons has no maximum.
        weights: (P,) weights w of the pairs; None for equal weights of 1.

    Raises:
        InputError: there are no pairs, a feature is not finite, or a penalty is not above 0.
    """
    x, penalty = np.asarray(differences, dtype=np.float64), np.asarray(ridge, dtype=np.float64)
    weight = np.ones(len(x)) if weights is None else np.asarray(weights, dtype=np.float64)
    if not len(x) or not np.isfinite(x).all() or (penalty <= 0).any():
        raise InputError(
            "Comparisons cannot be fitted.",
            where="pairs",
            expected="at least one pair, finite features, penalties above 0",
            found=f"{len(x)} pairs, {int((~np.isfinite(x)).sum())} numbers that are not finite, least penalty {penalty.min(initial=np.inf):g}",
        )
    beta = np.zeros(x.shape[1])
    value = _objective(x, weight, penalty, beta)
    for _ in range(STEPS):
        chance = preferred(x @ beta)
        gradient = penalty * beta - x.T @ (weight * (1.0 - chance))
        if np.abs(gradient).max() <= TOLERANCE * max(weight.sum(), 1.0):
            break
        curvature = (x * (weight * chance * (1.0 - chance))[:, None]).T @ x
        curvature[np.diag_indices(len(beta))] += penalty
        step, length = np.linalg.solve(curvature, gradient), 1.0
        while (tried := _objective(x, weight, penalty, beta - length * step)) > value and length > 1e-8:
            length /= 2
        beta, value = beta - length * step, min(tried, value)
    return beta


def _objective(x: Array, weight: Array, ridge: Array, beta: Array) -> float:
    return float(weight @ pair_losses(x @ beta) + 0.5 * (ridge * beta) @ beta)
