"""Draws are even, independent of their neighbours, and depend on what they are for alone."""

from __future__ import annotations

import numpy as np
import pytest
from tests.world.small import surprise

from taiji.world.draws import Draws, folded

N = 100_000


def test_a_draw_depends_on_its_keys_alone():
    draws, user = Draws(3, "taste"), np.arange(50)
    whole = draws.uniform("click", user[:, None], 7, np.arange(4)[None, :])
    assert whole.shape == (50, 4)
    np.testing.assert_array_equal(draws.uniform("click", user[::-1][:, None], 7, np.arange(4)[None, :])[::-1], whole)
    np.testing.assert_array_equal(Draws(3, "taste").uniform("click", user[9:10], 7, 2), whole[9:10, 2])
    for other in (Draws(4, "taste"), Draws(3, "watch")):
        assert not np.isin(other.uniform("click", user[:, None], 7, np.arange(4)[None, :]), whole).any()
    assert not np.isin(draws.uniform("view", user[:, None], 7, np.arange(4)[None, :]), whole).any()


def test_a_folded_key_is_the_keys_it_was_folded_from():
    draws, user = Draws(3, "taste"), np.arange(50)
    np.testing.assert_array_equal(
        draws.uniform("click", folded(user[:, None], np.arange(4)[None, :])),
        draws.uniform("click", user[:, None], np.arange(4)[None, :]),
    )


def test_draws_of_two_purposes_by_one_key_are_unrelated():
    one, other = (Draws(0, "a").uniform(purpose, np.arange(N)) for purpose in ("x", "y"))
    pairs = np.histogram2d(one, other, 10, ((0, 1), (0, 1)))[0]
    assert surprise(pairs, np.full((10, 10), N / 100)) < 4
    assert abs(np.corrcoef(one, other)[0, 1]) < 4 / np.sqrt(N)


def test_order_of_keys_counts():
    draws = Draws(0, "a")
    assert draws.bits("x", np.array([1]), np.array([2]))[0] != draws.bits("x", np.array([2]), np.array([1]))[0]


@pytest.mark.parametrize("seed", [0, 1])
def test_uniform_numbers_are_even_and_neighbours_unrelated(seed):
    draws = Draws(seed, "test")
    found = draws.uniform("even", np.arange(N))
    assert found.min() > 0 and found.max() < 1
    assert surprise(np.histogram(found, 50, (0, 1))[0], np.full(50, N / 50)) < 4
    pairs = np.histogram2d(found[:-1], found[1:], 10, ((0, 1), (0, 1)))[0]
    assert surprise(pairs, np.full((10, 10), (N - 1) / 100)) < 4
    grid = draws.uniform("grid", np.arange(300)[:, None], np.arange(300)[None, :])
    assert np.abs(np.corrcoef(grid[:, :50].T)[np.triu_indices(50, 1)]).max() < 5 / np.sqrt(300)
    assert surprise(np.bincount(draws.integers("whole", 7, np.arange(N)), minlength=7), np.full(7, N / 7)) < 4


def test_other_laws_have_their_moments():
    draws, key = Draws(0, "test"), np.arange(N)
    normal = draws.normal("normal", key)
    for power, moment, spread in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((normal**power).mean() - moment) < 4 * np.sqrt(spread / N)
    assert abs(draws.exponential("exponential", key).mean() - 1) < 4 / np.sqrt(N)
    assert abs(draws.logistic("logistic", key).std() - np.pi / np.sqrt(3)) < 0.03
    weights = np.array([1.0, 0.0, 3.0, 2.0])
    chosen = np.bincount(draws.choice("choice", np.broadcast_to(weights, (N, 4)), key), minlength=4)
    assert chosen[1] == 0 and surprise(chosen[[0, 2, 3]], N * weights[[0, 2, 3]] / 6) < 4
