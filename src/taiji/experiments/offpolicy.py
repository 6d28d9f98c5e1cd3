"""Off-policy evaluation: the value of a policy, estimated from the log of another policy with propensities.

The module has three estimators of the mean reward V of a target policy π, from N rows with reward r logged under a
policy μ, with w = π(a|x) / μ(a|x):

- inverse propensity (Horvitz & Thompson 1952): Σ w r / N;
- self-normalised (Swaminathan & Joachims, *NIPS* 2015): Σ w r / Σ w;
- doubly robust (Dudík, Langford & Li, *ICML* 2011): the value of π by a reward model, plus the mean weighted residual
  of this model.

Each estimate is a mean of one term per row, so one kind of interval serves all. With rare clicks and skewed weights, a
nominal 95 % percentile bootstrap covers only 90–92 %. The studentised bootstrap (Hall, *Annals of Statistics* 16, 1988)
reaches the nominal level, but its upper end lies far from the estimate (measured in ``benchmarks/abtest.py``).

If the logging policy hardly ever takes the target policy's actions, the log cannot evaluate the target policy. The
estimate then has a reason instead of an interval; without any overlap, it has no value either
(:meth:`Logged.no_overlap`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from taiji.core.errors import InputError
from taiji.metrics.bootstrap import resample_weights
from taiji.metrics.intervals import FEWEST, Entry, too_few

Array = NDArray[Any]
UNLIKELY = 4.0
"""Largest number of standard errors by which a mean weight may deviate from 1."""
FEWEST_APART = 5
"""Smallest number of rows that must differ from the most frequent value; with fewer, too many resamples contain none of
these rows."""


@dataclass(frozen=True)
class Logged:
    """A log with propensities, and the target policy's probabilities of the logged actions.

    Args:
        rewards: (N,) observed rewards.
        propensities: (N,) μ(a|x) > 0, the logging policy's probability of its action.
        targets: (N,) π(a|x) >= 0, the target policy's probability of the logged action.

    Raises:
        InputError: different lengths, a propensity that is not in (0, 1], a target that is not in [0, 1], or a reward
            that is not a finite number.
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
                "The propensity of a logged action is invalid.",
                where=f"row {int(np.flatnonzero(wrong)[0])}",
                expected="a probability above 0",
                found=str(self.propensities[wrong][0]),
                fix="log the probability of each chosen action; off-policy estimates are impossible without it",
            )

        for what, values, right in (
            ("reward", self.rewards, np.isfinite(self.rewards)),
            ("target probability", self.targets, (self.targets >= 0) & (self.targets <= 1)),
        ):
            if not right.all():
                raise InputError(
                    f"A {what} is invalid.",
                    where=f"row {int(np.flatnonzero(~right)[0])}",
                    expected="a finite number" if what == "reward" else "a number from 0 to 1",
                    found=str(values[~right][0]),
                )

    @property
    def weights(self) -> Array:
        """(N,) importance weights."""
        return np.asarray(self.targets / self.propensities)

    @property
    def effective_rows(self) -> float:
        """Kish's effective sample size (Σw)² / Σw²: the number of rows logged under the target policy
        that would be equally informative."""
        w = self.weights
        return float(w.sum() ** 2 / (w**2).sum()) if w.any() else 0.0

    @property
    def no_overlap(self) -> str:
        """Reason why the log says too little about the target policy; empty if it says enough.

        Importance weights average 1 if the logging policy takes every action of the target policy, and less if some
        actions are missing (Li et al., *AISTATS* 2015). If actions are missing, an estimate covers only part of the
        target policy.
        """
        w, rows = self.weights, self.effective_rows
        if not w.any():
            return "no overlap: the target policy never takes an action of the log"
        if rows < FEWEST:
            return f"too little overlap (effective sample size {rows:.1f}; at least {FEWEST} needed)"
        if abs(w.mean() - 1) > UNLIKELY * w.std() / np.sqrt(len(w)) + 1e-9:
            return f"no full overlap: the importance weights average {w.mean():.2f} instead of 1, so actions of the target policy are missing, or propensities are wrong"
        return ""


def ips_terms(log: Logged) -> Array:
    """(N,) terms whose mean is the inverse-propensity estimate."""
    return np.asarray(log.weights * log.rewards)


def snips_terms(log: Logged) -> Array:
    """(N,) terms whose mean is the self-normalised estimate, linearised around this estimate; NaN without overlap."""
    w = log.weights
    if not w.any():
        return np.full(len(w), np.nan)
    value = (w * log.rewards).sum() / w.sum()
    return np.asarray(value + w * (log.rewards - value) / w.mean())


def dr_terms(log: Logged, predicted: ArrayLike, baseline: ArrayLike) -> Array:
    """(N,) terms whose mean is the doubly robust estimate.

    Args:
        log: the log.
        predicted: (N,) the model's reward for the logged action.
        baseline: (N,) the model's reward averaged over the target policy's actions.
    """
    return np.asarray(np.asarray(baseline) + log.weights * (log.rewards - np.asarray(predicted)))


def value_interval(
    terms: Array, log: Logged | None = None, *, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> Entry:
    """Return the mean of the terms (N,) with its studentised bootstrap interval; resamples without any variation are
    left out.

    Args:
        terms: terms of an estimator.
        log: source of the terms. If its overlap with the target policy is too small, the entry has ``reason`` instead
            of an interval; if there is no overlap at all, it has no value either.
        resamples, level, seed: number of bootstrap resamples of rows, level of the interval, and random seed.
    """
    n, reason = len(terms), log.no_overlap if log is not None else ""
    if log is not None and not log.effective_rows:
        return {"value": None, "low": None, "high": None, "n": n, "reason": reason}
    if not n or not np.isfinite(terms).all():
        raise InputError(
            "An estimate's terms are not finite numbers.", found=f"{n} terms", fix="check the reward model"
        )
    mean, spread = float(terms.mean()), float(terms.std())
    found: Entry = {"value": mean, "low": None, "high": None, "n": n}
    informative = n - int(
        np.unique(terms, return_counts=True)[1].max()
    )  # rows that differ from the most frequent value
    if not reason and spread <= 1e-12 * float(np.abs(terms).max()):
        reason = "no spread: every row gives the same value"
    if not reason and n < FEWEST:
        reason = too_few("rows", n)
    if not reason and informative < FEWEST_APART:
        reason = f"too few informative rows ({informative} of {n} differ from the others)"
    if reason:
        return {**found, "reason": reason}
    centred, pivots = terms - mean, []
    for weights in resample_weights(n, resamples, seed):
        shifts = weights @ centred / n
        variances = weights @ centred**2 / n - shifts**2
        usable = variances > 1e-9 * spread**2
        pivots.append(shifts[usable] / np.sqrt(variances[usable] / n))
    low, high = np.quantile(np.concatenate(pivots), [(1 - level) / 2, (1 + level) / 2])
    error = spread / np.sqrt(n)
    return {**found, "low": float(mean - high * error), "high": float(mean - low * error)}


def cross_fitted_rates(
    actions: Array, rewards: Array, n_actions: int, *, folds: int = 5, strength: float = 200.0, seed: int = 0
) -> Array:
    """Fit a reward model for the doubly robust estimate: each action's mean reward, shrunk to the overall mean.

    Args:
        actions: (N,) action indices below ``n_actions``.
        rewards: (N,) observed rewards.
        n_actions: number of actions, A.
        folds: number of equal folds; a row's model is fitted on the other folds, so a row never predicts itself.
        strength: prior weight of the overall mean, in rows per action.
        seed: seed of the folds.

    Returns:
        (N, A) predicted reward of every action for each row.
    """
    if len(actions) < 2 or folds < 2:
        raise InputError(
            "There are too few rows or folds for cross-fitting.",
            expected="two or more rows and folds",
            found=f"{len(actions)} rows, {folds} folds",
        )
    fold = np.random.default_rng([seed, len(actions)]).permutation(len(actions)) % folds
    rates = np.zeros((folds, n_actions))
    for k in range(folds):
        others = fold != k
        count = np.bincount(actions[others], minlength=n_actions)
        total = np.bincount(actions[others], weights=rewards[others], minlength=n_actions)
        rates[k] = (total + strength * rewards[others].mean()) / (count + strength)
    return np.asarray(rates[fold])
