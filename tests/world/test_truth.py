"""The truth is the mean of what happens; the best list is the best one."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from tests.world.small import small

from taiji.core.component import NO_ITEM, Slate
from taiji.core.errors import InputError
from taiji.world.observation import Choice
from taiji.world.outcomes import user_outcomes
from taiji.world.policies import OraclePolicy
from taiji.world.scenario import scenarios
from taiji.world.world_time import START, to_micros

DRAWS, LISTS = 10_000, 10
NEVER_HAPPENS = {"unbiased_interest", "style_utility", "wording_utility"}


@pytest.mark.parametrize("name", scenarios())
def test_the_truth_is_the_mean_of_simulated_responses(name):
    """10^5 responses to ten lists: every expectation is within four standard errors, place by place."""
    world = small(name, users=60)
    while world.slot < 6:
        world.step(Choice(world.observation.candidates.items[:, : world.scenario.slate]))
    users = np.arange(LISTS)
    items = np.flatnonzero(world.available(world.slot))
    lists = np.stack([np.roll(items, -3 * k)[:3] for k in range(LISTS)])
    expected = world.truth.expect(users, lists)
    drawn = world.truth.simulate(np.repeat(users, DRAWS), np.repeat(lists, DRAWS, axis=0))
    checked = set()
    for key, values in expected.items():
        if key in NEVER_HAPPENS:
            continue
        outcome = drawn.outcome[key].reshape(LISTS, DRAWS, 3)
        error = outcome.std(axis=1) / np.sqrt(DRAWS)
        far = abs(outcome.mean(axis=1) - values) / np.maximum(error, np.sqrt(np.clip(values, 1 / DRAWS, 0.05) / DRAWS))
        assert far.max() < 4 and np.sqrt(np.mean(far**2)) < 1.4, f"{key}: {far.max():.1f} standard errors"
        checked.add(key)
    assert {"view", "click"} | {
        key for kind in world.mechanisms.values() for key in kind.truths
    } - NEVER_HAPPENS <= checked


def test_tastes_and_topics_are_those_of_the_time():
    world = small("live")
    users, items = np.arange(100), np.arange(100)
    now = world.truth.affinity(users, items)
    later = world.truth.affinity(users, items, START + 3 * 86_400_000_000)
    assert np.abs(later - now).mean() > 0.1
    both = world.truth.affinity(users, items, to_micros(np.where(users < 50, 0.0, 3.0)))
    np.testing.assert_array_equal(both, np.where(users < 50, now, later))
    np.testing.assert_array_equal(world.truth.affinity(users, items), now, "asking about later moved the world")
    cart = small("short-video").truth.affinity(users, items, behaviour="cart")
    assert 0.5 < np.corrcoef(cart, small("short-video").truth.affinity(users, items))[0, 1] < 0.99


def test_the_best_list_of_few_candidates_is_that_of_all_lists():
    world = small("mall", candidates=6)
    observation = world.reset()
    best = world.truth.best_slate(observation, 3)
    every = np.array(list(permutations(range(6), 3)))
    values = world.truth.list_values(observation, observation.candidates.items[:, every])
    np.testing.assert_allclose(world.truth.list_values(observation, best[:, None])[:, 0], values.max(axis=1))
    assert (world.truth.regret(observation, best) == 0).all()
    assert (world.truth.regret(observation, observation.candidates.items[:, :3]) >= 0).all()


@pytest.mark.parametrize("exact", [True, False], ids=["exhaustive", "greedy"])
def test_the_best_list_of_fewer_candidates_than_positions_shows_each_once(monkeypatch, exact):
    if not exact:
        monkeypatch.setattr("taiji.world.truth.EXACT", 0)
    world = small("live", items=20, candidates=50)
    observation = world.reset()
    candidates = Slate(np.where(np.arange(5) < 3, observation.candidates.items[:, :5], NO_ITEM))
    best = world.truth.best_slate(replace(observation, candidates=candidates), 5)
    for row, given in zip(best, candidates.items):
        there = given[given != NO_ITEM]
        assert (row[: len(there)] != NO_ITEM).all() and (row[len(there) :] == NO_ITEM).all()
        assert sorted(row[: len(there)]) == sorted(there)


def test_without_competition_the_best_list_is_in_the_order_of_rewards(monkeypatch):
    world = small("short-video", candidates=12).twin("funnel.competition")
    observation = world.reset()
    alone = world.truth.rewards(observation, observation.candidates.items)
    order = np.take_along_axis(observation.candidates.items, np.argsort(-alone, axis=1)[:, :4], axis=1)
    np.testing.assert_array_equal(world.truth.best_slate(observation, 4), order)


def test_growing_and_exchanging_comes_near_to_the_best_list(monkeypatch):
    world = small("mall", candidates=7)
    observation = world.reset()
    best = world.truth.list_values(observation, world.truth.best_slate(observation, 3)[:, None])[:, 0]
    monkeypatch.setattr("taiji.world.truth.EXACT", 0)
    found = world.truth.list_values(observation, world.truth.best_slate(observation, 3)[:, None])[:, 0]
    assert (found <= best + 1e-12).all() and (found / best).mean() > 0.998
    few = world.truth.list_values(observation, world.truth.best_slate(observation, 3, budget=4)[:, None])[:, 0]
    assert (few <= best + 1e-12).all() and few.mean() < best.mean()


def test_the_value_of_a_policy_has_an_error_and_an_upper_bound():
    truth = small("retention", users=80).truth
    random, oracle = truth.policy_value("random", 1, runs=4), truth.policy_value("oracle", 1, runs=4)
    assert oracle["pleased"].mean > random["pleased"].mean + 4 * random["pleased"].error
    assert random["reward"].runs == 4 and 0 < random["reward"].error < random["requests"].mean
    assert 0 < random["active_days"].mean <= 1


def test_a_policy_is_made_for_each_world():
    truth = small("retention", users=80).truth
    assert truth.policy_value(OraclePolicy, 1, runs=2) == truth.policy_value("oracle", 1, runs=2)
    with pytest.raises(InputError, match="worlds with other seeds"):
        truth.policy_value(OraclePolicy(truth.world), 1, runs=2)


def test_part_of_a_day_counts_the_requests_of_that_part():
    requests = {days: user_outcomes(small("retention"), "random", days)["requests"].sum() for days in (0.25, 0.5, 1)}
    assert 0 < requests[0.25] < requests[0.5] < requests[1]


def test_questions_about_what_is_not_there_are_errors():
    truth = small("push").truth
    for users, items in (([-1], [0]), ([120], [0]), ([0], [400]), ([0], [-2]), ([0.5], [0])):
        with pytest.raises(InputError, match="does not exist"):
            truth.expect(np.array(users), np.array(items))
    with pytest.raises(InputError, match="2 slots"):
        truth.simulate(np.arange(2), np.zeros((2, 1), dtype=int), to_micros(np.array([0.0, 3.0])))
