"""Intervals of statistics and of paired differences: exact where possible, else by the bootstrap. An entry without an
interval gives the reason.

``docs/explanation/intervals.md`` has the rules for few users, equal values and missing labels, with sources.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from statistics import NormalDist
from typing import Any, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from taiji.metrics.bootstrap import SAME, Fixed, Ratio, Statistic, distribution
from taiji.metrics.exact import binomial_interval, student_quantile

Array = NDArray[Any]
FEWEST = 10
"""Smallest number of users for a bootstrap interval; with fewer, only an exact interval is given."""
EXACT = 100_000
"""Largest number of users for an exact interval of 0/1 values; with more users it is slow, and the bootstrap gives the
same interval."""
_NORMAL = NormalDist()


class Entry(TypedDict):
    """A metric as it appears in ``metrics.json``: point value, interval and number of users behind it.

    ``method`` names an interval other than the bootstrap's: ``exact binomial``, or ``identity`` where every sample
    gives the same value. ``reason`` explains a missing interval.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    method: NotRequired[str]
    reason: NotRequired[str]


def interval_of(statistics: Sequence[Statistic], point: float, draws: Array, level: float = 0.95) -> Entry:
    """Return the interval of one arm around its point value.

    Args:
        statistics: the arm's statistics, one per training seed.
        point: value on the original users.
        draws: (R,) values on resampled users.
        level: coverage.

    Returns:
        the entry, with ``reason`` if it has no interval.
    """
    first = statistics[0]
    n, scarce = first.n, min(statistics, key=lambda statistic: statistic.units)
    if not np.isfinite(point):
        return {"value": None, "low": None, "high": None, "n": n, "reason": f"undefined: {_few(scarce)}"}
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
    """Return the interval of the paired difference of two arms.

    Args:
        first, second: statistics of the arms, one per training seed, over the same users.
        point: difference on the original users.
        draws: (R,) differences on resampled users.
        level: coverage.
        identical: True if both arms are identical, so that their difference is 0 on every sample.
    """
    scarce = min((*first, *second), key=lambda statistic: statistic.units)
    n = min(first[0].n, second[0].n)
    if not np.isfinite(point):
        return {"value": None, "low": None, "high": None, "n": n, "reason": f"undefined: {_few(scarce)}"}
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
        return {**found, "reason": too_few(f"{scarce.units_text} for which the two differ", differing)}
    return _resampled(found, draws, min(scarce.units, differing), level)


def _few(statistic: Statistic) -> str:
    return too_few(statistic.units_text, statistic.units)


def too_few(units: str, found: int) -> str:
    """Return the reason for a missing interval: there are only ``found`` of the ``units`` (a plural noun phrase)."""
    return f"too few {units} ({found}; at least {FEWEST} are needed)"


def _resampled(found: Entry, draws: Array, units: int, level: float) -> Entry:
    """Return the entry with its expanded percentile interval (Hesterberg, *The American Statistician* 69, 2015).

    Percentile intervals are too narrow by the factor √((n − 1) / n) and treat the spread as known. Their level is
    therefore raised to match Student's t with n − 1 degrees of freedom, which is exact for means of normal values.
    """
    draws = draws[np.isfinite(draws)]
    width = np.ptp(draws) if len(draws) else 0.0
    if width <= SAME * max(abs(found["value"] or 0.0), float(np.abs(draws).max(initial=0.0))):
        return {**found, "reason": "no spread: every resample of users gives the same value"}
    tail = _NORMAL.cdf(-student_quantile(level, units - 1) * (units / (units - 1)) ** 0.5)
    low, high = np.quantile(draws, [tail, 1 - tail])
    return {**found, "low": float(low), "high": float(high)}


def _exact(statistic: Ratio, level: float) -> tuple[float, float] | None:
    """Return the exact interval of a proportion if each user's value is 0 or 1, or if the values of all users are
    equal; None otherwise.

    Resampling identical values yields an interval of width zero, which would make 0 hits among 20 users a certainty.
    Values 0 and 1 get the interval of Clopper and Pearson, with users as the trials. If all n users have the value c,
    the population share of users with another value is at most w = 1 − (α/2)^(1/n). Their values lie in [0, 1], so the
    mean is within [c (1 − w), c + (1 − c) w].
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
    """Return the exact interval of the difference of two proportions if they differ by the same non-zero amount for
    every user; None otherwise."""
    there = first.denominator != 0
    if not (first.proportion and second.proportion and there.any()):
        return None
    if not np.array_equal(first.denominator, second.denominator):
        return None
    gaps = (first.numerator - second.numerator)[there] / first.denominator[there]
    if gaps[0] == 0 or not (gaps == gaps[0]).all():
        return None
    unseen = _unseen(len(gaps), level)  # users with another difference, which lies in [-1, 1]
    return float(gaps[0] * (1 - unseen) - unseen), float(gaps[0] * (1 - unseen) + unseen)


def _unseen(n: int, level: float) -> float:
    """Return the upper bound, at this level, for the population share of a property that none of n users has."""
    return float(1 - ((1 - level) / 2) ** (1 / n))


def estimate(statistic: Statistic, *, resamples: int = 1000, level: float = 0.95, seed: int = 0) -> Entry:
    """Return the value and the interval of one statistic."""
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
    """Return the value and the interval of ``first - second`` on the same users and resamples; ``identical`` is as in
    :func:`difference_of`."""
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
    """Return each arm's paired differences: ``difference`` from the reference arm, and ``competitors`` from each
    competitor that is listed before the arm.

    Args:
        arms: (A,) names.
        points, draws: (A,) point values and (R, A) values on common resamples.
        statistics: statistics of each arm, one per training seed.
        contents: one value per arm, equal for identical arms, for instance a hash of the predictions.
        against: reference arm; if it is not among the arms, there is no ``difference``.
        competitors: cheaper arms, which a later arm must also beat.
        level: coverage of the intervals.
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
