"""Statistics as functions of user weights, and their values on resampled users.

Rows of one user are not independent, so the user is the unit that is resampled (cluster bootstrap; Field & Welsh,
*JRSS B* 69, 2007). A resample is a vector of user weights (how often each was drawn), and a statistic maps a block of
such vectors to its values. No rows are copied. Two arms are compared in pairs by evaluating both under the same
weights. :mod:`taiji.metrics.intervals` derives the intervals.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from taiji.core.errors import InputError

Array = NDArray[Any]
CELLS = 4_000_000
"""Largest number of weights in memory, so that memory does not grow with the number of resamples."""
SAME = 1e-9
"""Relative difference below which two values are equal up to rounding."""


class Statistic(Protocol):
    """A metric as a function of user weights."""

    @property
    def n_users(self) -> int:
        """Length of a weight vector."""

    @property
    def n(self) -> int:
        """Number of users who contribute."""

    @property
    def units(self) -> int:
        """Number of users that limits the precision of the value (for an AUC, the users with the rarer label); at most
        ``n``."""

    @property
    def units_text(self) -> str:
        """Plural noun phrase for the users counted by :attr:`units`."""

    def differing(self, other: Statistic) -> int:
        """Return the number of users who contribute differently to this statistic and to ``other``; 0 if both are the
        same function."""

    def __call__(self, weights: Array) -> Array:
        """Return the values (R,) under the weights (R, n_users); NaN where undefined."""


@dataclass(frozen=True)
class Ratio:
    """Sum of ``numerator`` over users, divided by the sum of ``denominator``. If all denominators are 0 or 1, this is a
    mean over users.

    Args:
        numerator: (U,) per-user sums.
        denominator: (U,) per-user counts; users with 0 do not contribute.
        proportion: True if each user's value lies in [0, 1], which allows an exact interval even if all values are
            equal.
        units_text: plural noun phrase for the units, if they are not users.
    """

    numerator: Array
    denominator: Array
    proportion: bool = False
    units_text: str = "users"

    @classmethod
    def of_values(cls, values: Array, *, proportion: bool = False, units_text: str = "users") -> Ratio:
        """Return the mean over users (or other units) of their values (U,), ignoring NaN."""
        known = np.isfinite(values)
        return cls(np.where(known, values, 0.0), known.astype(np.float64), proportion, units_text)

    @classmethod
    def of_rows(cls, users: Array, values: Array, n_users: int, *, proportion: bool = False) -> Ratio:
        """Return the mean over rows of ``values`` (N,), ignoring NaN, with users (codes below ``n_users``) as the units
        that are resampled."""
        known = np.isfinite(values)
        top = np.bincount(users[known], weights=values[known], minlength=n_users)
        return cls(top, np.bincount(users[known], minlength=n_users).astype(np.float64), proportion)

    @property
    def n_users(self) -> int:
        return len(self.numerator)

    @property
    def n(self) -> int:
        return int(np.count_nonzero(self.denominator))

    @property
    def units(self) -> int:
        return self.n

    @property
    def values(self) -> Array:
        """Value of each contributing user, (n,)."""
        there = self.denominator != 0
        return np.asarray(self.numerator[there] / self.denominator[there])

    def differing(self, other: Statistic) -> int:
        if not isinstance(other, Ratio):
            return min(self.n, other.n)
        pairs = ((self.numerator, other.numerator), (self.denominator, other.denominator))
        return int(np.count_nonzero(np.logical_or(*(~_same(a, b) for a, b in pairs))))

    def __call__(self, weights: Array) -> Array:
        bottom = weights @ self.denominator
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(bottom != 0, (weights @ self.numerator) / bottom, np.nan)


@dataclass(frozen=True)
class Fixed:
    """Value that is the same on every sample, such as the AUC ½ of constant predictions.

    Args:
        value: value on every resample.
        n_users: length of a weight vector.
        n: number of users who contribute.
    """

    value: float
    n_users: int
    n: int
    units_text = "users"

    @property
    def units(self) -> int:
        return self.n

    def differing(self, other: Statistic) -> int:
        return 0 if self == other else min(self.n, other.n)

    def __call__(self, weights: Array) -> Array:
        return np.full(len(weights), self.value)


def _same(one: Array, other: Array) -> Array:
    """Return a mask: True where two numbers are equal up to rounding, relative to their size or the largest number."""
    largest = max(np.abs(one).max(initial=0.0), np.abs(other).max(initial=0.0))
    return np.isclose(one, other, rtol=SAME, atol=1e-12 * (largest if np.isfinite(largest) else 1.0))


def scores_differ(first: tuple[Array, Array], second: tuple[Array, Array]) -> int:
    """Return the number of users with a row whose two scores differ; 0 if both scores put all rows in the same order.

    Args:
        first, second: user codes (N,) and scores (N,) for the same rows.
    """
    (users, one), (_, other) = first, second
    if len(one) != len(other):
        return len(np.unique(users))
    ranks, others = (np.unique(scores, return_inverse=True)[1] for scores in (one, other))
    return 0 if np.array_equal(ranks, others) else len(np.unique(users[~_same(one, other)]))


class PooledAUC:
    """Area under the ROC curve over all rows together, each row weighted by its user's weight.

    The rows are sorted once. Under new weights, the area takes one cumulative sum over the rows, where a tie counts one
    half: AUC(w) = Σ_pos w (W_neg below + ½ W_neg tied) / (W_pos W_neg).

    Args:
        users: (N,) user codes below ``n_users``.
        labels: (N,) 0 or 1.
        scores: (N,) any finite floats.
    """

    units_text = "users with the rarer label"

    def __init__(self, users: Array, labels: Array, scores: Array, n_users: int) -> None:
        self.scored = users, scores
        order = np.argsort(scores, kind="stable")
        ranked, positive = scores[order], labels[order] > 0
        self._users, self._n_users = users[order].astype(np.intp), n_users
        self._positive, self._negative = np.flatnonzero(positive), np.flatnonzero(~positive)
        negative_scores = ranked[self._negative]
        # for each positive: the number of negatives below it, and below or tied with it
        self._below = np.searchsorted(negative_scores, ranked[self._positive], side="left")
        self._level = np.searchsorted(negative_scores, ranked[self._positive], side="right")

    @property
    def n_users(self) -> int:
        return self._n_users

    @property
    def n(self) -> int:
        return len(np.unique(self._users))

    @property
    def units(self) -> int:
        return min(len(np.unique(self._users[rows])) for rows in (self._positive, self._negative))

    def differing(self, other: Statistic) -> int:
        return scores_differ(self.scored, other.scored) if isinstance(other, PooledAUC) else min(self.n, other.n)

    def __call__(self, weights: Array) -> Array:
        values = np.full(len(weights), np.nan)
        positive_users, negative_users = self._users[self._positive], self._users[self._negative]
        running = np.zeros(len(negative_users) + 1)
        for row, weight in enumerate(weights):
            np.cumsum(weight[negative_users], out=running[1:])
            gain = weight[positive_users]
            total = gain.sum() * running[-1]
            if total > 0:
                values[row] = (gain @ (running[self._below] + running[self._level])) / (2 * total)
        return values


def resample_weights(n_users: int, resamples: int, seed: int) -> Iterator[Array]:
    """Yield blocks (r, n_users) of draw counts per user when ``n_users`` users are drawn with replacement."""
    generator = np.random.default_rng([seed, n_users])
    block = max(1, CELLS // max(n_users, 1))
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = generator.integers(n_users, size=(rows, n_users)) + np.arange(rows)[:, None] * n_users
        yield np.bincount(drawn.ravel(), minlength=rows * n_users).reshape(rows, n_users).astype(np.float64)


def distribution(statistics: Sequence[Statistic], *, resamples: int = 1000, seed: int = 0) -> tuple[Array, Array]:
    """Return point values (S,) and bootstrap values (R, S) of several statistics over the same users and the same
    resamples.

    Raises:
        InputError: the statistics are over different numbers of users, so they cannot be paired.
    """
    sizes = {statistic.n_users for statistic in statistics}
    if len(sizes) != 1:
        raise InputError(
            "Statistics over different users cannot be compared in pairs.",
            expected="one set of users",
            found=f"sizes {sorted(sizes)}",
        )
    n_users = sizes.pop()
    points = np.array([statistic(np.ones((1, n_users)))[0] for statistic in statistics])
    if n_users == 0:
        return points, np.full((resamples, len(statistics)), np.nan)
    blocks = [
        np.stack([s(weights) for s in statistics], axis=1) for weights in resample_weights(n_users, resamples, seed)
    ]
    return points, np.concatenate(blocks)
