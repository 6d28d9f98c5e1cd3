"""Bradley–Terry: exact where a formula exists, and what separates, repeats or is missing."""

from __future__ import annotations

import numpy as np
import pytest

from taiji.core.errors import InputError
from taiji.nn.bradley_terry import fit_bradley_terry, pair_losses, preferred


def test_probabilities_and_losses_are_those_of_the_law():
    assert preferred(np.array([0.0, np.log(3), -np.log(3)])) == pytest.approx([0.5, 0.75, 0.25])
    assert pair_losses(np.array([0.0, np.log(3)])) == pytest.approx([np.log(2), np.log(4 / 3)])
    assert pair_losses(np.array([-1000.0, 1000.0])) == pytest.approx([1000.0, 0.0])


def test_one_coefficient_is_the_log_odds_of_winning():
    """Without a penalty worth naming, 30 wins of 40 between x = 1 and x = 0 are a difference of log 3."""
    x = np.array([[1.0]] * 30 + [[-1.0]] * 10)
    assert fit_bradley_terry(x, np.array([1e-9]))[0] == pytest.approx(np.log(3), abs=1e-6)
    weighted = fit_bradley_terry(np.array([[1.0], [-1.0]]), np.array([1e-9]), np.array([30.0, 10.0]))
    assert weighted[0] == pytest.approx(np.log(3), abs=1e-6)


def test_the_gradient_is_zero_at_the_solution():
    rng = np.random.default_rng(0)
    x, ridge, weight = rng.normal(size=(200, 5)), np.full(5, 2.0), rng.uniform(0.5, 2, 200)
    beta = fit_bradley_terry(x, ridge, weight)
    gradient = ridge * beta - x.T @ (weight * (1 - preferred(x @ beta)))
    assert np.abs(gradient).max() < 1e-6
    np.testing.assert_allclose(
        fit_bradley_terry(np.concatenate([x, x]), 2 * ridge, np.tile(weight, 2)), beta, atol=1e-7
    )


def test_a_constant_feature_changes_nothing_and_separable_pairs_stay_finite():
    x = np.array([[1.0, 0.0], [2.0, 0.0]])
    beta = fit_bradley_terry(x, np.array([0.1, 0.1]))
    assert np.isfinite(beta).all() and beta[0] > 0 and beta[1] == 0


def test_no_pairs_and_numbers_that_are_none_are_rejected():
    for x, ridge in (
        (np.zeros((0, 2)), np.ones(2)),
        (np.array([[np.nan]]), np.ones(1)),
        (np.ones((1, 1)), np.zeros(1)),
    ):
        with pytest.raises(InputError, match="cannot be fitted"):
            fit_bradley_terry(x, ridge)
