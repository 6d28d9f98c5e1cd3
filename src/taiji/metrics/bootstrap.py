"""Percentile intervals by resampling users, alone and in pairs.

Rows of one user are not independent, so the user is the unit that is resampled (cluster bootstrap; Field & Welsh,
*JRSS B* 69, 2007). A resample is a vector of user weights (how often each was drawn), and a statistic maps a block of
such vectors to its values: nothing is copied, and two arms that see the same weights are compared in pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NotRequired, Protocol, TypedDict

import numpy as np
from numpy.typing import NDArray

from taiji.core.errors import InputError

Array = NDArray[Any]
CELLS = 4_000_000
"""Weights held at once, so that memory does not grow with the number of resamples."""


class Entry(TypedDict):
    """A metric as it appears in ``metrics.json``: point value, interval and number of users behind it."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    method: NotRequired[str]


class Statistic(Protocol):
    """A metric as a function of user weights."""

    @property
    def n_users(self) -> int:
        """Length of a weight vector."""

    @property
    def n(self) -> int:
        """Users who contribute something."""

    def __call__(self, weights: Array) -> Array:
        """Values (R,) under the weights (R, n_users); NaN where undefined."""


@dataclass(frozen=True)
class Ratio:
    """Sum over users of a numerator over the sum of a denominator; a mean over users when the denominators are 0 or 1.

    Args:
        numerator: (U,) per-user sums.
        denominator: (U,) per-user counts; users with 0 do not contribute.
        proportion: whether each unit lies in [0, 1], so that an all-0 or all-1 sample can have an honest interval.
    """

    numerator: Array
    denominator: Array
    proportion: bool = False

    @classmethod
    def of_values(cls, values: Array, *, proportion: bool = False) -> Ratio:
        """Mean over users of per-user values (U,), NaN left out."""
        known = np.isfinite(values)
        return cls(np.where(known, values, 0.0), known.astype(np.float64), proportion)

    @classmethod
    def of_rows(cls, users: Array, values: Array, n_users: int, *, proportion: bool = False) -> Ratio:
        """Mean over rows (N,) of ``values`` (NaN left out), resampled by user (codes below ``n_users``)."""
        known = np.isfinite(values)
        top = np.bincount(users[known], weights=values[known], minlength=n_users)
        return cls(top, np.bincount(users[known], minlength=n_users).astype(np.float64), proportion)

    @property
    def n_users(self) -> int:
        return len(self.numerator)

    @property
    def n(self) -> int:
        return int(np.count_nonzero(self.denominator))

    def __call__(self, weights: Array) -> Array:
        bottom = weights @ self.denominator
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(bottom != 0, (weights @ self.numerator) / bottom, np.nan)


class PooledAUC:
    """Area under the ROC curve over all rows together, every row weighted with its user's weight.

    The rows are sorted once; under new weights the area is one cumulative sum over the rows, ties counting one half:
    AUC(w) = Σ_pos w (W_neg below + ½ W_neg tied) / (W_pos W_neg).

    Args:
        users: (N,) user codes below ``n_users``.
        labels: (N,) 0 or 1.
        scores: (N,) any finite floats.
    """

    def __init__(self, users: Array, labels: Array, scores: Array, n_users: int) -> None:
        order = np.argsort(scores, kind="stable")
        ranked, positive = scores[order], labels[order] > 0
        self._users, self._n_users = users[order].astype(np.intp), n_users
        self._positive, self._negative = np.flatnonzero(positive), np.flatnonzero(~positive)
        negative_scores = ranked[self._negative]
        # for each positive: how many negatives lie below it, and how many below or level with it
        self._below = np.searchsorted(negative_scores, ranked[self._positive], side="left")
        self._level = np.searchsorted(negative_scores, ranked[self._positive], side="right")

    @property
    def n_users(self) -> int:
        return self._n_users

    @property
    def n(self) -> int:
        return len(np.unique(self._users))

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
    """Yield blocks (r, n_users) of how often each user is drawn when ``n_users`` are drawn with replacement."""
    generator = np.random.default_rng([seed, n_users])
    block = max(1, CELLS // max(n_users, 1))
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = generator.integers(n_users, size=(rows, n_users)) + np.arange(rows)[:, None] * n_users
        yield np.bincount(drawn.ravel(), minlength=rows * n_users).reshape(rows, n_users).astype(np.float64)


def distribution(statistics: Sequence[Statistic], *, resamples: int = 1000, seed: int = 0) -> tuple[Array, Array]:
    """Point values (S,) and bootstrap values (R, S) of several statistics over the same users and the same resamples.

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


def entry(point: float, draws: Array, n: int, *, level: float = 0.95) -> Entry:
    """Percentile interval of ``draws`` (R,) around a point value; below two users there is none."""
    if not np.isfinite(point):
        return {"value": None, "low": None, "high": None, "n": n}
    draws = draws[np.isfinite(draws)]
    if n < 2 or len(draws) == 0:
        return {"value": float(point), "low": None, "high": None, "n": n}
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return {"value": float(point), "low": float(low), "high": float(high), "n": n}


def estimate(statistic: Statistic, *, resamples: int = 1000, level: float = 0.95, seed: int = 0) -> Entry:
    """Value and interval of one statistic."""
    points, draws = distribution([statistic], resamples=resamples, seed=seed)
    return honest(statistic, entry(points[0], draws[:, 0], statistic.n, level=level), level)


def compare(first: Statistic, second: Statistic, *, resamples: int = 1000, level: float = 0.95, seed: int = 0) -> Entry:
    """Value and interval of ``first - second`` on the same users under the same resamples."""
    points, draws = distribution([first, second], resamples=resamples, seed=seed)
    return entry(points[0] - points[1], draws[:, 0] - draws[:, 1], min(first.n, second.n), level=level)


def differences(
    arms: Sequence[str],
    points: Array,
    draws: Array,
    ns: Sequence[int],
    against: str,
    competitors: Sequence[str],
    level: float,
) -> list[dict[str, Any]]:
    """Return every arm's paired differences: ``difference`` to one arm, ``competitors`` to those competitors named before it.

    Args:
        arms: (A,) names.
        points, draws: (A,) values and (R, A) of them on the same resamples.
        ns: (A,) what each rests on.
        against: an arm; where it is not among them there is no ``difference``.
        competitors: arms that cost less and must be beaten as well.
        level: of the intervals.
    """

    def gap(arm: int, other: int) -> dict[str, Any]:
        found = entry(
            points[arm] - points[other], draws[:, arm] - draws[:, other], min(ns[arm], ns[other]), level=level
        )
        return {"against": arms[other], "value": found["value"], "low": found["low"], "high": found["high"]}

    rows: list[dict[str, Any]] = []
    for place, arm in enumerate(arms):
        earlier = [other for other in range(place) if arms[other] in competitors and arms[other] != against]
        row: dict[str, Any] = (
            {"difference": gap(place, arms.index(against))} if against in arms and arm != against else {}
        )
        rows.append(row | ({"competitors": [gap(place, other) for other in earlier]} if earlier else {}))
    return rows


def honest(statistic: Statistic, found: Entry, level: float) -> Entry:
    """Give a proportion that is exactly 0 or 1 in every user the exact binomial interval.

    Resampling identical values yields an interval of width nothing, which would call 0 hits among 20 users a certainty.
    The bound is Clopper and Pearson's, 1 − (α/2)^(1/n), with users as the trials.
    """
    value, n = found["value"], found["n"]
    if not (isinstance(statistic, Ratio) and statistic.proportion and value in (0.0, 1.0) and n):
        return found
    width = 1 - ((1 - level) / 2) ** (1 / n)
    low, high = (0.0, width) if value == 0.0 else (1 - width, 1.0)
    return {"value": value, "low": low, "high": high, "n": n, "method": "exact binomial"}
