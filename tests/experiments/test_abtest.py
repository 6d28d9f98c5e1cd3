"""A/B statistics against textbook values and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from taiji.core.errors import TaijiError
from taiji.experiments.abtest import (
    aa_tests,
    always_valid_half_width,
    compare_arms,
    cuped,
    minimum_effect,
    power_of,
    ratio_values,
    sample_size,
)


def test_planning_agrees_with_the_textbook():
    assert sample_size(1.0, 0.5) == 63  # 2 (1.96 + 0.8416)² / 0.25 = 62.8
    deviation = math.sqrt(0.05 * 0.95)
    n = sample_size(deviation, 0.005)
    assert n == 29_826
    assert power_of(n, deviation, 0.005) == pytest.approx(0.8, abs=1e-3)
    assert minimum_effect(n, deviation) == pytest.approx(0.005, rel=1e-3)
    assert power_of(n, deviation, 1e-12) == pytest.approx(0.05, abs=1e-6)


def test_planned_power_is_found_by_simulation():
    rng, n = np.random.default_rng(0), sample_size(1.0, 0.5)
    found = sum(compare_arms(rng.normal(0.5, 1, n), rng.normal(0, 1, n)).significant for _ in range(600))
    assert found / 600 == pytest.approx(0.8, abs=0.05)


def test_cuped_keeps_the_mean_and_removes_what_the_past_explains():
    rng = np.random.default_rng(1)
    before = rng.normal(size=4000)
    values = 2 * before + rng.normal(size=4000)
    adjusted = cuped(values, before)
    assert adjusted.mean() == pytest.approx(values.mean())
    assert adjusted.var() == pytest.approx(values.var() * (1 - np.corrcoef(values, before)[0, 1] ** 2))
    np.testing.assert_array_equal(cuped(values, np.ones(4000)), values)


def test_ratio_values_have_the_ratio_and_its_spread():
    rng = np.random.default_rng(2)
    ratios, errors = [], []
    for _ in range(400):
        shown = rng.poisson(8, 300) + 1.0
        clicked = rng.binomial(shown.astype(int), rng.beta(2, 18, 300))
        values = ratio_values(clicked, shown)
        assert values.mean() == pytest.approx(clicked.sum() / shown.sum())
        ratios.append(values.mean())
        errors.append(values.std(ddof=1) / np.sqrt(300))
    assert np.mean(errors) == pytest.approx(np.std(ratios), rel=0.1)


def test_fixed_intervals_cover_once_and_fail_under_peeking_where_always_valid_ones_hold():
    rng, runs, looks = np.random.default_rng(3), 300, range(50, 1001, 50)
    fixed = always = end = 0
    for _ in range(runs):
        a, b = rng.exponential(size=1000), rng.exponential(size=1000)
        found = [compare_arms(a[:n], b[:n], planned=1000) for n in looks]
        fixed += any(f.significant for f in found)
        always += any(not f.always_low <= 0 <= f.always_high for f in found)
        end += found[-1].significant
    assert end / runs == pytest.approx(0.05, abs=0.035)
    assert fixed / runs > 0.15
    assert always / runs <= 0.05


def test_the_always_valid_interval_is_tightest_near_its_plan():
    width = [always_valid_half_width(1000, 1.0, planned) for planned in (30, 1000, 30_000)]
    assert width[1] < width[0] and width[1] < width[2]
    assert 1.96 < width[1] < 3.2


def test_aa_tests_are_significant_as_often_as_the_level_says():
    rng = np.random.default_rng(4)
    spent, before = rng.lognormal(size=1000), rng.lognormal(size=1000)
    assert aa_tests(spent, runs=400) == pytest.approx(0.05, abs=0.03)
    assert aa_tests(spent + before, before=before, runs=400) == pytest.approx(0.05, abs=0.03)
    shown = rng.poisson(5, 1000) + 1.0
    assert aa_tests(rng.binomial(shown.astype(int), 0.2), denominators=shown, runs=400) == pytest.approx(0.05, abs=0.03)
    assert aa_tests(spent, runs=50, seed=7) == aa_tests(spent, runs=50, seed=7)


def test_impossible_questions_are_refused():
    with pytest.raises(TaijiError, match="effect"):
        sample_size(1.0, 0.0)
    with pytest.raises(TaijiError, match="too few users"):
        compare_arms([1.0], [1.0, 2.0])
    with pytest.raises(TaijiError, match="denominator"):
        ratio_values([0, 0], [0, 0])
    same = compare_arms([1.0, 1.0], [1.0, 1.0])
    assert same.p == 1.0 and not same.significant
