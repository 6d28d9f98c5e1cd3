"""Exact laws of small samples, against SciPy and against what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from taiji.core.errors import TaijiError
from taiji.metrics.exact import beta_cdf, binomial_interval, student_cdf, student_quantile


def test_student_agrees_with_the_tables():
    assert student_quantile(0.95, 9) == pytest.approx(2.262157, abs=1e-6)
    assert student_quantile(0.95, 1) == pytest.approx(12.706205, abs=1e-5)
    assert student_quantile(0.95, 1e7) == pytest.approx(1.959964, abs=1e-6)
    assert student_cdf(0.0, 3.0) == 0.5 and student_cdf(1.0, 1.0) == pytest.approx(0.75)
    assert student_quantile(0.95, 0) == math.inf


def test_all_laws_agree_with_scipy():
    stats = pytest.importorskip("scipy.stats")
    for freedom in (1, 2, 3.7, 9, 30, 1000, 1e6):
        for level in (0.1, 0.5, 0.95, 0.999):
            assert student_quantile(level, freedom) == pytest.approx(stats.t.ppf((1 + level) / 2, freedom), rel=1e-7)
    for n in (1, 2, 7, 50, 1000, 100_000):
        for k in {0, 1, n // 2, n}:
            expected = stats.binomtest(min(k, n), n).proportion_ci()
            assert binomial_interval(min(k, n), n) == pytest.approx((expected.low, expected.high), abs=1e-8)
    for x in (0.0, 1e-9, 0.3, 0.99, 1.0):
        assert beta_cdf(x, 2.5, 40.0) == pytest.approx(stats.beta.cdf(x, 2.5, 40.0), abs=1e-12)


@pytest.mark.parametrize("n", [1, 5, 10, 40])
def test_binomial_intervals_cover_at_least_at_their_level_for_every_rate(n):
    counts = np.arange(n + 1)
    ends = np.array([binomial_interval(int(k), n, 0.9) for k in counts])
    for rate in np.linspace(0.01, 0.99, 33):
        law = np.array([math.comb(n, int(k)) * rate**k * (1 - rate) ** (n - k) for k in counts])
        assert law[(ends[:, 0] <= rate) & (rate <= ends[:, 1])].sum() >= 0.9 - 1e-12


def test_impossible_questions_are_refused():
    for action in (lambda: binomial_interval(3, 2), lambda: binomial_interval(0, 0), lambda: student_quantile(1.0, 3)):
        with pytest.raises(TaijiError):
            action()
