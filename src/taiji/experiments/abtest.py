"""Statistics of an A/B test: planning, variance reduction, ratios, always-valid intervals, A/A checks.

The unit is always the user, because users are assigned to arms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from taiji.core.errors import InputError
from taiji.metrics.exact import student_cdf, student_quantile
from taiji.metrics.intervals import FEWEST, too_few

Array = NDArray[Any]
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Comparison:
    """Difference of two arms' means, treatment minus control.

    Attributes:
        difference, low, high: difference of the means per user, with its interval (None if there is none).
        always_low, always_high: interval that stays valid under repeated looks; None without a plan, and if ``low`` is
            None.
        relative: difference divided by the control's mean; None if that is 0.
        p: two-sided p-value for one look at the end; None if undefined.
        n: number of users in both arms.
        reason: why there is no interval; empty if there is one.
    """

    difference: float
    low: float | None
    high: float | None
    always_low: float | None
    always_high: float | None
    relative: float | None
    p: float | None
    n: int
    reason: str = ""

    @property
    def significant(self) -> bool:
        """True if the interval ``[low, high]`` excludes zero; False without an interval."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high

    def covers(self, truth: float) -> bool | None:
        """Return True if the interval ``[low, high]`` covers a value; None without an interval."""
        return None if self.low is None or self.high is None else self.low <= truth <= self.high


def sample_size(deviation: float, effect: float, *, level: float = 0.95, power: float = 0.8) -> int:
    """Return the users per arm needed to detect a true ``effect`` with probability ``power`` (two-sided, equal arms).

    n = 2 (z_{1−α/2} + z_power)² σ² / δ², where α = 1 − ``level``, σ is ``deviation`` and δ is ``effect``. For a rate p,
    σ = √(p (1 − p)).
    """
    if not (effect and deviation > 0 and math.isfinite(effect) and math.isfinite(deviation)):
        raise InputError(
            "No sample size can be computed for this effect and deviation.",
            expected="effect other than 0, deviation above 0, both finite",
            found=f"{effect}, {deviation}",
        )
    z = _NORMAL.inv_cdf((1 + level) / 2) + _NORMAL.inv_cdf(power)
    return math.ceil(2 * (z * deviation / effect) ** 2)


def power_of(n: int, deviation: float, effect: float, *, level: float = 0.95) -> float:
    """Return the probability that a test with ``n`` users per arm detects a true ``effect`` (two-sided)."""
    _demand_plan(n, deviation)
    shift, z = abs(effect) / (deviation * math.sqrt(2 / n)), _NORMAL.inv_cdf((1 + level) / 2)
    return _NORMAL.cdf(shift - z) + _NORMAL.cdf(-shift - z)


def minimum_effect(n: int, deviation: float, *, level: float = 0.95, power: float = 0.8) -> float:
    """Return the smallest true effect that ``n`` users per arm detect with probability ``power``."""
    _demand_plan(n, deviation)
    return (_NORMAL.inv_cdf((1 + level) / 2) + _NORMAL.inv_cdf(power)) * deviation * math.sqrt(2 / n)


def _demand_plan(n: int, deviation: float) -> None:
    if n < 1 or not (deviation > 0 and math.isfinite(deviation)):
        raise InputError(
            "The test cannot be planned for these users and this deviation.",
            expected="one or more users per arm, deviation above 0",
            found=f"{n}, {deviation}",
        )


def _finite(what: str, values: ArrayLike) -> Array:
    """Return values (N,) as floats.

    Raises:
        InputError: a value is not finite. Dropping it silently could change the result of a comparison.
    """
    found = np.asarray(values, dtype=np.float64)
    if not np.isfinite(found).all():
        raise InputError(
            "A user's value is not a finite number.",
            where=f"{what}, user {int(np.flatnonzero(~np.isfinite(found))[0])}",
            fix="give users without an outcome the value 0, or exclude them from both arms by a rule set before the test",
        )
    return found


def cuped(values: ArrayLike, before: ArrayLike) -> Array:
    """Return values (N,) minus the part that their pre-period covariate (N,) explains; the mean over all users is
    unchanged.

    Deng et al., *WSDM* 2013: y − θ (x − mean x) with θ = cov(x, y) / var(x). Pass both arms together, so that they
    share θ and mean x. Otherwise, the difference would be biased.
    """
    y, x = _finite("values", values), _finite("covariate", before)
    if len(y) != len(x):
        raise InputError(
            "Values and covariate differ in length.", expected="one of each per user", found=f"{len(y)} and {len(x)}"
        )
    if not len(x) or np.ptp(x) <= 1e-12 * np.abs(x).max():
        return y  # a covariate that is constant up to rounding explains nothing
    centred = x - x.mean()
    spread = float(centred @ centred)
    return np.asarray(y - (centred @ (y - y.mean())) / spread * centred)


def ratio_values(numerators: ArrayLike, denominators: ArrayLike) -> Array:
    """Return one value per user (N,). Their mean is the ratio of the sums, and the variance of this mean is the
    variance of the ratio by the delta method.

    With numerators a, denominators b and R = Σ a / Σ b, a user's value is R + (a − R b) / mean b (Deng, Knoblich & Lu,
    *KDD* 2018). Pass one arm at a time.
    """
    a, b = _finite("numerators", numerators), _finite("denominators", denominators)
    if b.sum() == 0:
        raise InputError(
            "The denominator of a ratio metric is 0 for all users.",
            expected="at least one user with a positive denominator",
        )
    ratio = a.sum() / b.sum()
    return np.asarray(ratio + (a - ratio * b) / b.mean())


def compare_arms(
    treated: ArrayLike, control: ArrayLike, *, level: float = 0.95, planned: int | None = None
) -> Comparison:
    """Compare two means with unequal variances by Welch's t (*Biometrika* 34, 1947).

    Args:
        treated: (N,) values of users in the treatment.
        control: (M,) values of users in the control.
        level: level of the intervals.
        planned: number of users in both arms together at which the always-valid interval should be tightest; None omits
            this interval.

    Returns:
        the comparison. It has a reason instead of an interval if an arm has fewer than ten users, or if all users of
        each arm have the same value.

    Raises:
        InputError: an arm has fewer than two users, or a value is not finite.
    """
    a, b = _finite("treatment", treated), _finite("control", control)
    if min(len(a), len(b)) < 2:
        raise InputError(
            "An arm has too few users.",
            expected="two or more in each",
            found=f"{len(a)} and {len(b)}",
            fix="assign more users",
        )
    difference, n = float(a.mean() - b.mean()), len(a) + len(b)
    relative = difference / float(b.mean()) if b.mean() else None
    parts = [float(arm.var(ddof=1)) / len(arm) for arm in (a, b)]
    error, scale = math.sqrt(sum(parts)), max(float(np.abs(arm).max()) for arm in (a, b))
    reason = ""
    if error <= 1e-12 * scale:
        reason = "no spread: all users of each arm have the same value"
    elif min(len(a), len(b)) < FEWEST:
        reason = too_few("users in an arm", min(len(a), len(b)))
    if reason:
        p = 1.0 if error <= 1e-12 * scale and abs(difference) <= 1e-12 * scale else None  # the difference is always 0
        return Comparison(difference, None, None, None, None, relative, p, n, reason)
    freedom = sum(parts) ** 2 / sum(part**2 / (len(arm) - 1) for part, arm in zip(parts, (a, b)))
    half = student_quantile(level, freedom) * error
    wide = None if planned is None else always_valid_half_width(n, error, planned, level=level)
    return Comparison(
        difference,
        difference - half,
        difference + half,
        None if wide is None else difference - wide,
        None if wide is None else difference + wide,
        relative,
        2 * student_cdf(-abs(difference) / error, freedom),
        n,
    )


def always_valid_half_width(n: int, error: float, planned: int, *, level: float = 0.95) -> float:
    """Return the half-width of an interval with simultaneous coverage over all looks.

    The interval inverts the mixture sequential probability ratio test with a normal mixture (Robbins 1970; Johari et
    al., *Operations Research* 70, 2022), in the form of an asymptotic confidence sequence (Waudby-Smith et al., *Annals
    of Statistics* 52, 2024, eq. 8). Its half-width is σ √(2 (nρ² + 1) / (n²ρ²) · log(√(nρ² + 1) / α)). With
    ρ² = (−2 log α + log(−2 log α) + 1) / planned, the interval is tightest near ``planned``.

    Args:
        n: users so far in both arms; the width is infinite for fewer than two.
        error: current standard error of the difference, so that σ = error √n.
        planned: number of users at the planned end.
        level: 1 − α.
    """
    if planned < 1 or not 0 < level < 1:
        raise InputError(
            "The planned end or the level of a sequential interval is invalid.",
            expected="one or more users, a level between 0 and 1",
            found=f"{planned}, {level}",
        )
    if n < 2:
        return math.inf
    alpha = 1 - level
    # Any ρ² > 0 gives a valid interval. The formula for ρ² is negative for levels below 0.13, so ρ² has a minimum.
    tilt = max(-2 * math.log(alpha) + math.log(-2 * math.log(alpha)) + 1, 0.1) / planned
    return error * math.sqrt(2 * (n * tilt + 1) / (n * tilt) * math.log(math.sqrt(n * tilt + 1) / alpha))


def allows_aa_tests(values: Array) -> bool:
    """Return True if some A/A test of outcomes (N,) could be significant: there are enough users, with different
    values."""
    return len(values) >= 2 * FEWEST and bool(np.ptp(values))


def aa_tests(
    values: ArrayLike,
    *,
    denominators: ArrayLike | None = None,
    before: ArrayLike | None = None,
    runs: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> float:
    """Return the share of significant A/A tests, in which users are split into random halves without any difference in
    treatment.

    Args:
        values: (N,) outcome of each user.
        denominators: (N,) denominators of a ratio metric.
        before: (N,) pre-period covariate for CUPED (not together with denominators).
        runs: number of splits.
        level: confidence level of each test. A share of about 1 − level of the tests should be significant.
        seed: seed of the splits.

    Raises:
        InputError: there are too few users or runs; all values are equal, so that no split could be significant; the
            denominators have another length; or there are both denominators and a covariate.
    """
    y = _finite("values", values)
    if runs < 1 or not allows_aa_tests(y):
        raise InputError(
            "These values do not allow an A/A test.",
            expected=f"{2 * FEWEST} or more users whose values are not all equal, one or more runs",
            found=f"{len(y)} users, {len(np.unique(y))} distinct values, {runs} runs",
        )
    if denominators is not None and (before is not None or len(np.asarray(denominators)) != len(y)):
        raise InputError(
            "These denominators do not allow an A/A test.",
            expected=f"one for each of the {len(y)} users, and no covariate",
            found=f"{len(np.asarray(denominators))}" + ("" if before is None else " and a covariate"),
        )
    if before is not None:
        y = cuped(y, before)
    generator, found = np.random.default_rng([seed, len(y)]), 0
    for _ in range(runs):
        order = generator.permutation(len(y))
        halves = [order[: len(y) // 2], order[len(y) // 2 :]]
        if denominators is None:
            arms = [y[half] for half in halves]
        else:
            arms = [ratio_values(y[half], np.asarray(denominators)[half]) for half in halves]
        found += compare_arms(*arms, level=level).significant
    return found / runs
