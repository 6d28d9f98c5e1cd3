"""Best of n: exact on small sets, and never beyond the order statistics."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from taiji.metrics.best_of_n import gain_bound, gain_of_best, normal_maximum, value_of_best


def test_the_value_of_the_best_is_the_mean_over_all_draws():
    values, scores = np.array([3.0, 1.0, 2.0]), np.array([0.1, 0.7, 0.5])
    for n in (1, 2, 3):
        drawn = [max(draw, key=lambda i: scores[i]) for draw in product(range(3), repeat=n)]
        assert value_of_best(values, scores, n) == pytest.approx(np.mean([values[i] for i in drawn]))


def test_equal_scores_choose_evenly():
    assert gain_of_best(np.array([1.0, 5.0, 3.0]), np.zeros(3), 64) == pytest.approx(0.0)
    assert value_of_best(np.array([0.0, 4.0, 9.0]), np.array([1.0, 1.0, 0.0]), 200) == pytest.approx(2.0)


def test_no_score_gains_more_than_the_values_and_the_opposite_loses_as_much():
    rng = np.random.default_rng(1)
    values = rng.normal(size=50)
    for n in (1, 2, 8, 64):
        assert gain_of_best(values, values + rng.normal(size=50), n) <= gain_bound(values, n) + 1e-12
        assert gain_of_best(values, -values, n) == pytest.approx(-gain_bound(-values, n))
    assert gain_bound(values, 1) == pytest.approx(0.0)


def test_normal_maxima_are_the_known_ones():
    assert normal_maximum(1) == pytest.approx(0.0, abs=1e-12)
    assert normal_maximum(2) == pytest.approx(1 / np.sqrt(np.pi))
    assert normal_maximum(3) == pytest.approx(1.5 / np.sqrt(np.pi))
    assert normal_maximum(64) == pytest.approx(2.3437, abs=1e-3)
