"""Exact distributions for small samples: Student's t and the binomial, via the incomplete beta function.

SciPy has these distributions too, but the base installation avoids its 164 MB; the tests compare with SciPy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from statistics import NormalDist

from taiji.core.errors import InputError

STEPS = 1000
"""Largest number of steps towards a quantile, and of terms of a continued fraction."""
TINY = 1e-300


def beta_cdf(x: float, a: float, b: float) -> float:
    """Return the regularised incomplete beta function I_x(a, b), for 0 <= x <= 1 and a, b > 0."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    # The fraction converges fast only for x below (a + 1) / (a + b + 2).
    return front * _fraction(x, a, b) / a if x < (a + 1) / (a + b + 2) else 1 - front * _fraction(1 - x, b, a) / b


def _fraction(x: float, a: float, b: float) -> float:
    """Return the continued fraction of the incomplete beta function by Lentz's method (DLMF 8.17.22)."""
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1) or TINY)
    value = d
    for m in range(1, STEPS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        before = value
        for term in (even, odd):
            d, c = 1 / (1 + term * d or TINY), 1 + term / c or TINY
            value *= c * d
        if abs(value - before) <= 1e-15 * abs(value):
            break
    return value


def student_cdf(t: float, freedom: float) -> float:
    """Return P(T <= t) of Student's t with ``freedom`` > 0 degrees of freedom."""
    tail = 0.5 * beta_cdf(freedom / (freedom + t * t), freedom / 2, 0.5)
    return tail if t < 0 else 1 - tail


@lru_cache(4096)
def student_quantile(level: float, freedom: float) -> float:
    """Return t with P(\\|T\\| <= t) = ``level``, the factor of a two-sided interval; infinite for ``freedom`` 0."""
    if not 0 < level < 1:
        raise InputError("A level is not between 0 and 1.", expected="such as 0.95", found=f"{level}")
    if freedom <= 0:
        return math.inf
    # The tail is convex in t > 0, so Newton's method increases to the root from the normal quantile, which is smaller.
    t = NormalDist().inv_cdf((1 + level) / 2)
    peak = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - 0.5 * math.log(freedom * math.pi)
    for _ in range(STEPS):
        density = math.exp(peak - (freedom + 1) / 2 * math.log1p(t * t / freedom))
        step = (student_cdf(-t, freedom) - (1 - level) / 2) / density
        t += step
        if abs(step) <= 1e-13 * t:
            break
    return t


def binomial_interval(successes: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """Return the Clopper–Pearson interval (*Biometrika* 26, 1934), whose coverage is at least ``level`` for every n."""
    if not 0 <= successes <= trials or trials < 1:
        raise InputError(
            "There are no trials, or the number of successes is not between 0 and the number of trials.",
            found=f"{successes} of {trials}",
        )
    alpha, k, n = 1 - level, successes, trials
    low = 0.0 if k == 0 else _bisect(lambda p: beta_cdf(p, k, n - k + 1) < alpha / 2, 0.0, 1.0)
    high = 1.0 if k == n else _bisect(lambda p: beta_cdf(p, k + 1, n - k) < 1 - alpha / 2, 0.0, 1.0)
    return low, high


def _bisect(below: Callable[[float], bool], low: float, high: float) -> float:
    """Return the point between ``low`` and ``high`` at which ``below`` changes from true to false."""
    for _ in range(STEPS):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if below(middle) else (low, middle)
    return (low + high) / 2
