"""The statistics of an A/B test: planning, variance reduction, ratios, intervals that allow peeking, A/A checks.

The unit is the user throughout, because the user is what is assigned to an arm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from taiji.core.errors import InputError

Array = NDArray[Any]
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Comparison:
    """Difference of two arms' means, treatment minus control.

    Attributes:
        difference, low, high: of the mean a user, with its interval.
        always_low, always_high: interval that stays valid however often one looks; None if no plan was given.
        relative: difference over the control's mean; NaN where that is 0.
        p: two-sided, for one look at the end.
        n: users in both arms.
    """

    difference: float
    low: float
    high: float
    always_low: float | None
    always_high: float | None
    relative: float
    p: float
    n: int

    @property
    def significant(self) -> bool:
        """True if the fixed interval excludes zero."""
        return not self.low <= 0 <= self.high


def sample_size(deviation: float, effect: float, *, level: float = 0.95, power: float = 0.8) -> int:
    """Users an arm needs so that a true ``effect`` is found with probability ``power`` (two-sided, equal arms).

    n = 2 (z_{1−α/2} + z_power)² σ² / δ². For a rate p, σ = √(p (1 − p)).
    """
    if effect == 0 or deviation <= 0:
        raise InputError(
            "A sample size needs an effect to find and a spread to find it in.",
            expected="effect other than 0, deviation above 0",
            found=f"{effect}, {deviation}",
        )
    z = _NORMAL.inv_cdf((1 + level) / 2) + _NORMAL.inv_cdf(power)
    return math.ceil(2 * (z * deviation / effect) ** 2)


def power_of(n: int, deviation: float, effect: float, *, level: float = 0.95) -> float:
    """Probability that ``n`` users an arm show a true ``effect`` (two-sided)."""
    shift, z = abs(effect) / (deviation * math.sqrt(2 / n)), _NORMAL.inv_cdf((1 + level) / 2)
    return _NORMAL.cdf(shift - z) + _NORMAL.cdf(-shift - z)


def minimum_effect(n: int, deviation: float, *, level: float = 0.95, power: float = 0.8) -> float:
    """Smallest true effect that ``n`` users an arm show with probability ``power``."""
    return (_NORMAL.inv_cdf((1 + level) / 2) + _NORMAL.inv_cdf(power)) * deviation * math.sqrt(2 / n)


def cuped(values: ArrayLike, before: ArrayLike) -> Array:
    """Values (N,) less what their pre-period covariate (N,) explains; the mean over all users does not change.

    Deng et al., *WSDM* 2013: y − θ (x − mean x) with θ = cov(x, y) / var(x). Give both arms together, so that θ and the
    mean are the same for both and the difference stays unbiased.
    """
    y, x = np.asarray(values, dtype=np.float64), np.asarray(before, dtype=np.float64)
    centred = x - x.mean()
    spread = float(centred @ centred)
    return y if spread == 0 else np.asarray(y - (centred @ (y - y.mean())) / spread * centred)


def ratio_values(numerators: ArrayLike, denominators: ArrayLike) -> Array:
    """One value a user (N,) whose mean is the ratio of sums and whose spread is the ratio's (delta method).

    R + (a − R b) / mean b with R = Σ a / Σ b (Deng, Knoblich & Lu, *KDD* 2018). Give one arm at a time.
    """
    a, b = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    if b.sum() == 0:
        raise InputError(
            "A ratio metric has nothing in its denominator.",
            expected="at least one user with a positive denominator",
        )
    ratio = a.sum() / b.sum()
    return np.asarray(ratio + (a - ratio * b) / b.mean())


def compare_arms(
    treated: ArrayLike, control: ArrayLike, *, level: float = 0.95, planned: int | None = None
) -> Comparison:
    """Difference of means with unequal variances.

    Args:
        treated: (N,) values of users in the treatment.
        control: (M,) values of users in the control.
        level: of the intervals.
        planned: users in both arms at which the always-valid interval should be tightest; None leaves it out.

    Raises:
        InputError: an arm with fewer than two users.
    """
    a, b = np.asarray(treated, dtype=np.float64), np.asarray(control, dtype=np.float64)
    if min(len(a), len(b)) < 2:
        raise InputError("An arm has too few users.", expected="two or more in each", found=f"{len(a)} and {len(b)}")
    difference, variance = float(a.mean() - b.mean()), float(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))
    error, n = math.sqrt(variance), len(a) + len(b)
    half = _NORMAL.inv_cdf((1 + level) / 2) * error
    p = 2 * _NORMAL.cdf(-abs(difference) / error) if error > 0 else float(difference == 0)
    wide = None if planned is None else always_valid_half_width(n, error, planned, level=level)
    return Comparison(
        difference,
        difference - half,
        difference + half,
        None if wide is None else difference - wide,
        None if wide is None else difference + wide,
        difference / float(b.mean()) if b.mean() else math.nan,
        p,
        n,
    )


def always_valid_half_width(n: int, error: float, planned: int, *, level: float = 0.95) -> float:
    """Half-width of an interval that covers at all looks together.

    The normal mixture of the sequential probability ratio test (Robbins 1970; Johari et al., *Operations Research* 70,
    2022) in the form of an asymptotic confidence sequence (Waudby-Smith et al., *Annals of Statistics* 52, 2024, eq. 8):
    σ √(2 (nρ² + 1) / (n²ρ²) · log(√(nρ² + 1) / α)), with ρ² = (−2 log α + log(−2 log α) + 1) / planned, which makes it
    tightest near ``planned``.

    Args:
        n: users so far in both arms.
        error: standard error of the difference now, so that σ = error √n.
        planned: users at the planned end.
        level: 1 − α.
    """
    alpha = 1 - level
    tilt = (-2 * math.log(alpha) + math.log(-2 * math.log(alpha)) + 1) / planned
    return error * math.sqrt(2 * (n * tilt + 1) / (n * tilt) * math.log(math.sqrt(n * tilt + 1) / alpha))


def aa_tests(
    values: ArrayLike,
    *,
    denominators: ArrayLike | None = None,
    before: ArrayLike | None = None,
    runs: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> float:
    """Share of A/A tests that come out significant: users are split in halves at random, with nothing different.

    Args:
        values: (N,) a user's outcome.
        denominators: (N,) makes it a ratio metric.
        before: (N,) pre-period covariate for CUPED (not together with denominators).
        runs: splits.
        level: of each test; about 1 − level of them should be significant.
        seed: of the splits.
    """
    y = np.asarray(values, dtype=np.float64)
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
