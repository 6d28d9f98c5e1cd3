"""Off-policy evaluation: the value of a policy, estimated from the log of another one that kept its propensities.

Three estimators of the mean reward V of a target policy π from rows logged under μ, with w = π(a|x) / μ(a|x):
inverse propensity (Horvitz & Thompson 1952), Σ w r / N; self-normalised (Swaminathan & Joachims, *NIPS* 2015),
Σ w r / Σ w; doubly robust (Dudík, Langford & Li, *ICML* 2011), the model's value plus the weighted residual.

Each is a mean of one term a row, so that one interval serves all. Clicks are rare and weights are skewed, and there a
percentile bootstrap covers 88–91 % where it says 95 %; the studentised bootstrap (Hall, *Annals of Statistics* 16, 1988)
keeps its word, at the price of a long upper arm (measured in ``benchmarks/abtest.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from taiji.core.errors import InputError
from taiji.metrics.bootstrap import Entry, resample_weights

Array = NDArray[Any]


@dataclass(frozen=True)
class Logged:
    """A log with propensities, and what the target policy would have done there.

    Args:
        rewards: (N,) what was earned.
        propensities: (N,) μ(a|x) > 0, the logging policy's probability of the action it took.
        targets: (N,) π(a|x) >= 0, the target policy's probability of that same action.

    Raises:
        InputError: different lengths, or a propensity that is not in (0, 1].
    """

    rewards: Array
    propensities: Array
    targets: Array

    def __post_init__(self) -> None:
        if not (len(self.rewards) == len(self.propensities) == len(self.targets) > 0):
            raise InputError(
                "The log's columns differ in length, or are empty.",
                found=f"{len(self.rewards)}, {len(self.propensities)}, {len(self.targets)}",
            )
        wrong = ~((self.propensities > 0) & (self.propensities <= 1))
        if wrong.any():
            raise InputError(
                "A logged action has no valid propensity.",
                where=f"row {int(np.flatnonzero(wrong)[0])}",
                expected="a probability above 0",
                found=str(self.propensities[wrong][0]),
                fix="log the probability with which each action was chosen; off-policy estimates are impossible without it",
            )

    @property
    def weights(self) -> Array:
        """(N,) importance weights."""
        return np.asarray(self.targets / self.propensities)

    @property
    def effective_rows(self) -> float:
        """Kish's effective sample size (Σw)² / Σw²: how many rows of the target policy this log is worth."""
        w = self.weights
        return float(w.sum() ** 2 / (w**2).sum()) if w.any() else 0.0


def ips_terms(log: Logged) -> Array:
    """(N,) terms whose mean is the inverse-propensity estimate."""
    return np.asarray(log.weights * log.rewards)


def snips_terms(log: Logged) -> Array:
    """(N,) terms whose mean is the self-normalised estimate, linearised around it for the interval."""
    w = log.weights
    value = (w * log.rewards).sum() / w.sum()
    return np.asarray(value + w * (log.rewards - value) / w.mean())


def dr_terms(log: Logged, predicted: ArrayLike, baseline: ArrayLike) -> Array:
    """(N,) terms whose mean is the doubly robust estimate.

    Args:
        log: the log.
        predicted: (N,) a model's reward for the action that was taken.
        baseline: (N,) the model's reward averaged over the target policy's actions.
    """
    return np.asarray(np.asarray(baseline) + log.weights * (log.rewards - np.asarray(predicted)))


def value_interval(terms: Array, *, resamples: int = 1000, level: float = 0.95, seed: int = 0) -> Entry:
    """Mean of the terms (N,) with its studentised bootstrap interval; resamples without any variation are left out."""
    n, mean, spread = len(terms), float(terms.mean()), float(terms.std())
    if n < 2 or spread == 0:
        return {"value": mean, "low": None, "high": None, "n": n}
    centred, pivots = terms - mean, []
    for weights in resample_weights(n, resamples, seed):
        shifts = weights @ centred / n
        variances = weights @ centred**2 / n - shifts**2
        usable = variances > 1e-9 * spread**2
        pivots.append(shifts[usable] / np.sqrt(variances[usable] / n))
    low, high = np.quantile(np.concatenate(pivots), [(1 - level) / 2, (1 + level) / 2])
    error = spread / np.sqrt(n)
    return {"value": mean, "low": float(mean - high * error), "high": float(mean - low * error), "n": n}


def cross_fitted_rates(
    actions: Array, rewards: Array, n_actions: int, *, folds: int = 5, strength: float = 200.0, seed: int = 0
) -> Array:
    """A reward model for the doubly robust estimate: each action's mean reward, shrunk to the overall mean.

    Args:
        actions: (N,) action numbers below ``n_actions``.
        rewards: (N,).
        n_actions: A.
        folds: a row's model is fitted on the other folds, so that a row never predicts itself.
        strength: rows of the overall mean that every action starts with.
        seed: of the folds.

    Returns:
        (N, A) predicted reward of every action in the row's place.
    """
    fold = np.random.default_rng([seed, len(actions)]).integers(folds, size=len(actions))
    rates = np.zeros((folds, n_actions))
    for k in range(folds):
        others = fold != k
        count = np.bincount(actions[others], minlength=n_actions)
        total = np.bincount(actions[others], weights=rewards[others], minlength=n_actions)
        rates[k] = (total + strength * rewards[others].mean()) / (count + strength)
    return np.asarray(rates[fold])
