"""The gradient of parameters drawn around a policy's, and what it finds."""

import numpy as np
import pytest

from taiji.core.errors import InputError
from taiji.models.policy.session_policy import SessionPolicy


def test_an_action_is_linear_in_the_state_with_a_constant():
    policy = SessionPolicy(2, 1, 0.3)
    policy.parameters = np.array([[2.0, 1.0], [0.0, -1.0]])
    states = np.array([[0.5], [-1.0]])
    np.testing.assert_allclose(policy.act(states), [[2.0, -1.0], [-1.0, -1.0]], atol=1e-15)
    own = np.stack([policy.parameters, 0 * policy.parameters])
    np.testing.assert_allclose(policy.act(states, own), [[2.0, -1.0], [0.0, 0.0]], atol=1e-15)


@pytest.mark.parametrize("sessions", [6, 7], ids=["even", "odd"])
def test_draws_are_pairs_on_either_side(sessions):
    policy = SessionPolicy(2, 3, 0.5)
    policy.parameters = np.arange(8.0).reshape(2, 4)
    drawn = policy.draw(sessions, np.random.default_rng(0))
    assert drawn.shape == (sessions, 2, 4)
    np.testing.assert_allclose(
        drawn[0:6:2] + drawn[1:6:2], 2 * np.broadcast_to(policy.parameters, (3, 2, 4)), atol=1e-12
    )


def test_a_step_is_the_covariance_of_returns_and_parameters():
    policy, random = SessionPolicy(2, 1, 0.7), np.random.default_rng(1)
    policy.parameters = random.normal(size=(2, 2))
    before, drawn, returns = policy.parameters.copy(), policy.draw(50, random), random.normal(size=50) + 3
    policy.improve(drawn, returns, rate=1.5)
    lead = (returns - returns.mean()) / returns.std()
    expected = before + 1.5 * np.mean([r * (d - before) for r, d in zip(lead, drawn)], axis=0)
    np.testing.assert_allclose(policy.parameters, expected, atol=1e-13)
    moved = SessionPolicy(2, 1, 0.7)
    moved.parameters = before
    moved.improve(drawn, 10 * returns - 5, rate=1.5)  # another unit of the return
    np.testing.assert_allclose(moved.parameters, policy.parameters, atol=1e-12)


def test_on_a_linear_return_the_step_is_the_natural_gradient():
    policy, random, slope = SessionPolicy(1, 1, 0.4), np.random.default_rng(2), np.array([[2.0, -1.0]])
    drawn = policy.draw(40_000, random)
    returns = (drawn * slope).sum(axis=(1, 2))
    policy.improve(drawn, returns, rate=1.0)
    np.testing.assert_allclose(policy.parameters, 0.4**2 * slope / returns.std(), atol=0.01)


def test_the_best_action_of_each_state_is_found():
    policy, random = SessionPolicy(1, 1, 0.3), np.random.default_rng(3)
    state = random.choice([-1.0, 1.0], 400)
    for _ in range(40):
        drawn = policy.draw(400, random)
        acted = policy.act(state[:, None], drawn)[:, 0]
        policy.improve(drawn, -((acted - 0.5 * state - 1.0) ** 2), rate=2.0)
    np.testing.assert_allclose(policy.act(np.array([[-1.0], [1.0]])), [[0.5], [1.5]], atol=0.15)


@pytest.mark.parametrize("returns", [[1.0], [1.0, np.nan], [1.0, 2.0, 3.0]], ids=["too few", "nan", "another number"])
def test_sessions_that_tell_nothing_are_errors(returns):
    policy = SessionPolicy(1, 0, 0.3)
    with pytest.raises(InputError, match="returns"):
        policy.improve(policy.draw(2, np.random.default_rng(0)), np.array(returns), rate=1.0)
