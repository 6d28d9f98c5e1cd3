"""Returns by doubling are returns by going backwards."""

import numpy as np
import pytest

from taiji.core.errors import InputError
from taiji.models.policy.session_returns import followers, returns


def backwards(session, time, rewards, discount):
    found, ahead = np.zeros(len(rewards)), {}
    for row in sorted(range(len(rewards)), key=lambda row: (time[row], row), reverse=True):
        found[row] = ahead[session[row]] = rewards[row] + discount[row] * ahead.get(session[row], 0.0)
    return found


@pytest.mark.parametrize("seed", range(5))
def test_returns_are_those_of_a_loop(seed):
    random = np.random.default_rng(seed)
    session, time = random.integers(7, size=60), random.integers(20, size=60)
    rewards, discount = random.normal(size=60), random.uniform(0.5, 1.0, size=60)
    found = returns(rewards, followers(session, time), discount)
    np.testing.assert_allclose(found, backwards(session, time, rewards, discount), rtol=0, atol=1e-12)


def test_known_returns():
    after = followers(np.array([1, 2, 1, 1]), np.array([5, 0, 3, 9]))
    assert after.tolist() == [3, -1, 0, -1]
    assert returns(np.array([1.0, 7.0, 2.0, 4.0]), after, 0.5).tolist() == [3.0, 7.0, 3.5, 4.0]
    assert returns(np.array([1.0, 7.0, 2.0, 4.0]), after, 0.0).tolist() == [1.0, 7.0, 2.0, 4.0]
    assert returns(np.zeros(0), np.zeros(0, np.int64), 0.9).tolist() == []


def test_one_long_session():
    count = 1000
    found = returns(np.ones(count), followers(np.zeros(count), np.arange(count)), 0.99)
    np.testing.assert_allclose(found, (1 - 0.99 ** np.arange(count, 0, -1)) / 0.01, rtol=1e-12)


@pytest.mark.parametrize("after", [[1, 0], [0, -1]], ids=["two", "itself"])
def test_a_circle_is_said(after):
    with pytest.raises(InputError):
        returns(np.ones(2), np.array(after), 0.5)


def test_what_is_not_finite_is_said():
    with pytest.raises(InputError):
        returns(np.array([np.nan, 1.0]), np.array([1, -1]), 0.5)
    with pytest.raises(InputError):
        followers(np.zeros(2), np.zeros(3))
