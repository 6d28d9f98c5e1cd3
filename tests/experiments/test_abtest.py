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


@pytest.mark.parametrize("bad", [math.nan, math.inf], ids=["nan", "inf"])
def test_a_value_that_is_no_number_decides_nothing(bad):
    good = np.arange(20.0)
    with pytest.raises(TaijiError, match="not a finite number"):
        compare_arms([*good, bad], good)
    with pytest.raises(TaijiError, match="not a finite number"):
        cuped(good, [*good[1:], bad])
    with pytest.raises(TaijiError, match="not a finite number"):
        ratio_values([*good, bad], np.ones(21))
    with pytest.raises(TaijiError, match="effect"):
        sample_size(bad, 0.1)


@pytest.mark.parametrize(
    ("treated", "control", "reason"),
    [
        ([2.0] * 50, [1.0] * 50, "no spread"),
        ([0.1 + 0.2] * 50, [0.3] * 50, "no spread"),
        ([1.0, 2.0, 4.0, 3.0] * 20, [1.0, 2.0], "too few users in an arm (2; at least 10 are needed)"),
        ([5.0, 5.1, 5.2, 5.1], [1.0, 1.1, 1.2, 1.1], "too few users in an arm (4; at least 10 are needed)"),
    ],
    ids=["equal in each arm", "equal but for rounding", "two users in an arm", "four users an arm"],
)
def test_too_little_is_said_so_and_gives_no_verdict(treated, control, reason):
    found = compare_arms(treated, control, planned=100)
    assert reason in found.reason and not found.significant and found.covers(0.0) is None
    assert (found.low, found.high, found.always_low, found.always_high) == (None, None, None, None)


def test_an_empty_arm_is_explained():
    with pytest.raises(TaijiError, match="too few users"):
        compare_arms([], np.arange(20.0))


def test_ten_users_an_arm_are_covered_as_often_as_the_level_says():
    """A normal quantile in place of Welch's t covers 92.6 % here; the arms' spreads differ."""
    rng = np.random.default_rng(5)
    found = [compare_arms(rng.normal(0, 3, 10), rng.normal(0, 1, 10)) for _ in range(1500)]
    assert np.mean([f.covers(0.0) for f in found]) == pytest.approx(0.95, abs=0.018)


def test_a_covariate_that_is_constant_but_for_rounding_changes_nothing():
    values, before = np.random.default_rng(6).normal(size=50), np.full(50, 0.3)
    before[::2] = 0.1 + 0.2
    np.testing.assert_array_equal(cuped(values, before), values)
    with pytest.raises(TaijiError, match="length"):
        cuped(values, before[1:])


@pytest.mark.parametrize("n", [0, 1])
def test_before_the_second_user_a_sequential_interval_is_infinite(n):
    assert always_valid_half_width(n, 1.0, 100) == math.inf


@pytest.mark.parametrize("level", [0.05, 0.1, 0.5, 0.999], ids=["5%", "10%", "50%", "99.9%"])
def test_sequential_intervals_exist_at_every_level(level):
    fixed = compare_arms(np.arange(20.0), np.arange(20.0) + 1, level=level, planned=40)
    assert fixed.always_low < fixed.low < fixed.high < fixed.always_high


def test_plans_and_checks_without_users_or_spread_are_refused():
    for action in (
        lambda: power_of(0, 1.0, 0.1),
        lambda: power_of(10, 0.0, 0.1),
        lambda: minimum_effect(0, 1.0),
        lambda: always_valid_half_width(10, 1.0, 0),
        lambda: aa_tests(np.ones(100)),
        lambda: aa_tests(np.arange(10.0)),
        lambda: aa_tests(np.arange(100.0), denominators=np.ones(90)),
        lambda: aa_tests(np.arange(100.0), denominators=np.ones(100), before=np.arange(100.0)),
    ):
        with pytest.raises(TaijiError):
            action()
