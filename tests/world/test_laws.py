"""Shared formulas, exactly."""

from __future__ import annotations

import numpy as np
import pytest

from taiji.world.laws import blend, dot, drift, log_normal_mean, logit, sigmoid, unit, view_chance

RANDOM = np.random.default_rng(0)


def test_sigmoid_and_logit_are_inverse_and_do_not_overflow():
    x = np.array([-700.0, -3, 0, 3, 30])
    np.testing.assert_allclose(sigmoid(x), [0, 1 / (1 + np.exp(3)), 0.5, 1 / (1 + np.exp(-3)), 1], atol=1e-12)
    np.testing.assert_allclose(logit(sigmoid(x[1:4])), x[1:4])


def test_vectors_stay_on_the_sphere():
    v, c, z = (unit(RANDOM.normal(size=(40, 6))) for _ in range(3))
    moved = drift(v, c, z, pull=0.5, spread=2.0, step=0.1)
    np.testing.assert_allclose(dot(moved, moved), 1)
    np.testing.assert_allclose(dot(blend(v, c, 0.3), blend(v, c, 0.3)), 1)
    np.testing.assert_allclose(drift(v, c, z, pull=0.0, spread=0.0, step=0.1), v)
    np.testing.assert_allclose(drift(v, c, z, pull=100.0, spread=0.0, step=0.1), c)


def test_a_product_does_not_depend_on_the_batch():
    v, c = RANDOM.normal(size=(2, 1000, 16))
    np.testing.assert_array_equal(dot(v, c)[17:18], dot(v[17:18], c[17:18]))


def test_views_and_log_normal_means():
    np.testing.assert_allclose(view_chance(np.arange(4), 1.0), [1, 1 / 2, 1 / 3, 1 / 4])
    assert (view_chance(np.arange(4), 0.0) == 1).all()
    assert log_normal_mean(0.3, 0.5) == pytest.approx(np.exp(0.3 + 0.5 * RANDOM.normal(size=200_000)).mean(), rel=0.01)
