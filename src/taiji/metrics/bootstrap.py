"""Intervals by resampling users, alone and in pairs; exact ones where they exist, and the reason where there is none.

Rows of one user are not independent, so the user is the unit that is resampled (cluster bootstrap; Field & Welsh,
*JRSS B* 69, 2007). A resample is a vector of user weights (how often each was drawn), and a statistic maps a block of
such vectors to its values: nothing is copied, and two arms that see the same weights are compared in pairs. The rules for
few users, equal values and missing labels are in ``docs/explanation/intervals.md``.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, NotRequired, Protocol, TypedDict

import numpy as np
from numpy.typing import NDArray

from taiji.core.errors import InputError
from taiji.metrics.exact import binomial_interval, student_quantile

Array = NDArray[Any]
CELLS = 4_000_000
"""Weights held at once, so that memory does not grow with the number of resamples."""
FEWEST = 10
"""Users below whom resampling says too little: from fewer there is no interval, unless an exact one exists."""
EXACT = 100_000
"""Users up to whom hits get the exact interval; beyond, it takes long and resampling says the same."""
SAME = 1e-9
"""Relative difference below which two values are equal but for rounding."""
_NORMAL = NormalDist()


class Entry(TypedDict):
    """A metric as it appears in ``metrics.json``: point value, interval and number of users behind it.

    ``method`` names an interval that is not the bootstrap's: ``exact binomial``, or ``identity`` where no sample could give
    another value. ``reason`` says why there is no interval.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    method: NotRequired[str]
    reason: NotRequired[str]


class Statistic(Protocol):
    """A metric as a function of user weights."""

    @property
    def n_users(self) -> int:
        """Length of a weight vector."""

    @property
    def n(self) -> int:
        """Users who contribute something."""

    @property
    def units(self) -> int:
        """Users on whom the scarcest part of the value rests; at most ``n``."""

    @property
    def units_text(self) -> str:
        """Plural noun phrase for these users."""

    def differing(self, other: Statistic) -> int:
        """Number of users who contribute something else to ``other``; 0 if they are the same function."""

    def __call__(self, weights: Array) -> Array:
        """Values (R,) under the weights (R, n_users); NaN where undefined."""


@dataclass(frozen=True)
class Ratio:
    """Sum over users of a numerator over the sum of a denominator; a mean over users when the denominators are 0 or 1.

    Args:
        numerator: (U,) per-user sums.
        denominator: (U,) per-user counts; users with 0 do not contribute.
        proportion: whether each unit lies in [0, 1], so that equal ones can have an honest interval.
        units_text: plural noun phrase for the units, where they are not users.
    """

    numerator: Array
    denominator: Array
    proportion: bool = False
    units_text: str = "users"

    @classmethod
    def of_values(cls, values: Array, *, proportion: bool = False, units_text: str = "users") -> Ratio:
        """Mean over users (or other units) of their values (U,), NaN left out."""
        known = np.isfinite(values)
        return cls(np.where(known, values, 0.0), known.astype(np.float64), proportion, units_text)

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

    @property
    def units(self) -> int:
        return self.n

    @property
    def values(self) -> Array:
        """Each contributing user's own value, (n,)."""
        there = self.denominator != 0
        return np.asarray(self.numerator[there] / self.denominator[there])

    def differing(self, other: Statistic) -> int:
        if not isinstance(other, Ratio):
            return min(self.n, other.n)
        pairs = ((self.numerator, other.numerator), (self.denominator, other.denominator))
        return int(np.count_nonzero(np.logical_or(*(~np.isclose(a, b, rtol=SAME, atol=1e-12) for a, b in pairs))))

    def __call__(self, weights: Array) -> Array:
        bottom = weights @ self.denominator
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(bottom != 0, (weights @ self.numerator) / bottom, np.nan)


@dataclass(frozen=True)
class Fixed:
    """Value that no sample can change, such as the AUC ½ of predictions that are all equal.

    Args:
        value: the same on every resample.
        n_users: length of a weight vector.
        n: users who contribute something.
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


def scores_differ(first: tuple[Array, Array], second: tuple[Array, Array]) -> int:
    """Return the number of users with a row scored otherwise; 0 where both order all rows alike.

    Args:
        first, second: user codes (N,) and scores (N,) of the same rows.
    """
    (users, one), (_, other) = first, second
    if len(one) != len(other):
        return len(np.unique(users))
    ranks, others = (np.unique(scores, return_inverse=True)[1] for scores in (one, other))
    return 0 if np.array_equal(ranks, others) else len(np.unique(users[~np.isclose(one, other, rtol=SAME, atol=1e-12)]))


class PooledAUC:
    """Area under the ROC curve over all rows together, every row weighted with its user's weight.

    The rows are sorted once; under new weights the area is one cumulative sum over the rows, ties counting one half:
    AUC(w) = Σ_pos w (W_neg below + ½ W_neg tied) / (W_pos W_neg).

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
        # for each positive: how many negatives lie below it, and how many below or level with it
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


def interval_of(statistics: Sequence[Statistic], point: float, draws: Array, level: float = 0.95) -> Entry:
    """Interval of one arm around its point value.

    Args:
        statistics: the arm's, one per training seed.
        point: the value on the users as they are.
        draws: (R,) values on resampled users.
        level: coverage.

    Returns:
        the entry; without an interval it has ``reason``.
    """
    first = statistics[0]
    n, scarce = first.n, min(statistics, key=lambda statistic: statistic.units)
    if not np.isfinite(point):
        return {"value": None, "low": None, "high": None, "n": n, "reason": f"undefined, {_few(scarce)}"}
    found: Entry = {"value": float(point), "low": None, "high": None, "n": n}
    if isinstance(first, Fixed) and all(statistic == first for statistic in statistics):
        return {**found, "low": found["value"], "high": found["value"], "method": "identity"}
    if isinstance(first, Ratio) and first.proportion and len(statistics) == 1:
        exact = _exact(first, level)
        if exact is not None:
            return {**found, "low": exact[0], "high": exact[1], "method": "exact binomial"}
    if scarce.units < FEWEST:
        return {**found, "reason": _few(scarce)}
    return _resampled(found, draws, scarce.units, level)


def difference_of(
    first: Sequence[Statistic],
    second: Sequence[Statistic],
    point: float,
    draws: Array,
    level: float = 0.95,
    *,
    identical: bool = False,
) -> Entry:
    """Interval of the paired difference of two arms.

    Args:
        first, second: their statistics, one per training seed, over the same users.
        point: the difference on the users as they are.
        draws: (R,) differences on resampled users.
        level: coverage.
        identical: True if both arms are one and the same thing, so that no sample could tell them apart.
    """
    scarce = min((*first, *second), key=lambda statistic: statistic.units)
    n = min(first[0].n, second[0].n)
    if not np.isfinite(point):
        return {"value": None, "low": None, "high": None, "n": n, "reason": f"undefined, {_few(scarce)}"}
    found: Entry = {"value": float(point), "low": None, "high": None, "n": n}
    differing = max(one.differing(other) for one, other in zip(first, second, strict=True))
    if identical or (differing == 0 and not any(isinstance(statistic, Ratio) for statistic in first)):
        return {**found, "value": 0.0, "low": 0.0, "high": 0.0, "method": "identity"}
    if len(first) == 1 and isinstance(first[0], Ratio) and isinstance(second[0], Ratio):
        exact = _exact_difference(first[0], second[0], level)
        if exact is not None:
            return {**found, "low": exact[0], "high": exact[1], "method": "exact binomial"}
    if scarce.units < FEWEST:
        return {**found, "reason": _few(scarce)}
    if differing < FEWEST:
        return {**found, "reason": too_few(f"{scarce.units_text} in which the two differ", differing)}
    return _resampled(found, draws, min(scarce.units, differing), level)


def _few(statistic: Statistic) -> str:
    return too_few(statistic.units_text, statistic.units)


def too_few(units: str, found: int) -> str:
    """Return the reason for which ``found`` units, named in the plural, bear no interval."""
    return f"too few {units} to tell ({found}, needed {FEWEST})"


def _resampled(found: Entry, draws: Array, units: int, level: float) -> Entry:
    """Give an entry the expanded percentile interval (Hesterberg, *The American Statistician* 69, 2015).

    Percentiles are too narrow by √((n − 1) / n) and as if the spread were known: their level is raised to that of
    Student's t with n − 1 degrees of freedom, which makes it exact for means of normal values.
    """
    draws = draws[np.isfinite(draws)]
    width = np.ptp(draws) if len(draws) else 0.0
    if width <= SAME * max(abs(found["value"] or 0.0), float(np.abs(draws).max(initial=0.0))):
        return {**found, "reason": "no spread to tell from, every resample of users gives the same value"}
    tail = _NORMAL.cdf(-student_quantile(level, units - 1) * (units / (units - 1)) ** 0.5)
    low, high = np.quantile(draws, [tail, 1 - tail])
    return {**found, "low": float(low), "high": float(high)}


def _exact(statistic: Ratio, level: float) -> tuple[float, float] | None:
    """Return the exact interval of a proportion that is 0 or 1, or one same value, in every user; None otherwise.

    Resampling identical values yields an interval of width nothing, which would call 0 hits among 20 users a certainty.
    Users are the trials (Clopper & Pearson). If all n show one value c, the share of users who show another one is at most
    w = 1 − (α/2)^(1/n), and those lie in [0, 1]: the mean is within [c (1 − w), c + (1 − c) w].
    """
    values, single = statistic.values, bool(np.isin(statistic.denominator, (0.0, 1.0)).all())
    n = len(values)
    if n and (values == values[0]).all():
        unseen = _unseen(n, level)
        return float(values[0] * (1 - unseen)), float(values[0] + (1 - values[0]) * unseen)
    if single and n <= EXACT and np.isin(values, (0.0, 1.0)).all():
        return binomial_interval(int(values.sum()), n, level)
    return None


def _exact_difference(first: Ratio, second: Ratio, level: float) -> tuple[float, float] | None:
    """Return the exact interval of two proportions that differ by one same amount, other than 0, in every user."""
    there = first.denominator != 0
    if not (first.proportion and second.proportion and there.any()):
        return None
    if not np.array_equal(first.denominator, second.denominator):
        return None
    gaps = (first.numerator - second.numerator)[there] / first.denominator[there]
    if gaps[0] == 0 or not (gaps == gaps[0]).all():
        return None
    unseen = _unseen(len(gaps), level)  # users who show another difference, which lies in [-1, 1]
    return float(gaps[0] * (1 - unseen) - unseen), float(gaps[0] * (1 - unseen) + unseen)


def _unseen(n: int, level: float) -> float:
    """Return the largest share of something that n users do not show, at this level."""
    return float(1 - ((1 - level) / 2) ** (1 / n))


def estimate(statistic: Statistic, *, resamples: int = 1000, level: float = 0.95, seed: int = 0) -> Entry:
    """Value and interval of one statistic."""
    points, draws = distribution([statistic], resamples=resamples, seed=seed)
    return interval_of([statistic], points[0], draws[:, 0], level)


def compare(
    first: Statistic,
    second: Statistic,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    identical: bool = False,
) -> Entry:
    """Value and interval of ``first - second`` on the same users under the same resamples; ``identical`` as in :func:`difference_of`."""
    points, draws = distribution([first, second], resamples=resamples, seed=seed)
    same = identical or first is second
    return difference_of([first], [second], points[0] - points[1], draws[:, 0] - draws[:, 1], level, identical=same)


def differences(
    arms: Sequence[str],
    points: Array,
    draws: Array,
    statistics: Sequence[Sequence[Statistic]],
    contents: Sequence[Hashable],
    against: str,
    competitors: Sequence[str],
    level: float,
) -> list[dict[str, Any]]:
    """Return every arm's paired differences: ``difference`` to one arm, ``competitors`` to those competitors named before it.

    Args:
        arms: (A,) names.
        points, draws: (A,) values and (R, A) of them on the same resamples.
        statistics: of each arm, one per training seed.
        contents: of each arm, something equal for arms that are one and the same thing, for instance their predictions.
        against: an arm; where it is not among them there is no ``difference``.
        competitors: arms that cost less and must be beaten as well.
        level: of the intervals.
    """

    def gap(arm: int, other: int) -> dict[str, Any]:
        found: dict[str, Any] = dict(
            difference_of(
                statistics[arm],
                statistics[other],
                points[arm] - points[other],
                draws[:, arm] - draws[:, other],
                level,
                identical=contents[arm] == contents[other],
            )
        )
        del found["n"]
        return {"against": arms[other], **found}

    rows: list[dict[str, Any]] = []
    for place, arm in enumerate(arms):
        earlier = [other for other in range(place) if arms[other] in competitors and arms[other] != against]
        row: dict[str, Any] = (
            {"difference": gap(place, arms.index(against))} if against in arms and arm != against else {}
        )
        rows.append(row | ({"competitors": [gap(place, other) for other in earlier]} if earlier else {}))
    return rows
