"""Policies choose among candidates, with the propensities they say."""

from __future__ import annotations

import numpy as np
import pytest
from tests.world.small import small, surprise

from taiji.core.component import Requests
from taiji.core.errors import ConfigError
from taiji.world.observation import Observation
from taiji.world.policies import POLICIES, make_policy


@pytest.mark.parametrize("name", [*POLICIES, "popular@0.5", "content@1"])
def test_lists_hold_candidates_once_and_come_out_the_same(name):
    world = small("short-video")
    policy, observation = make_policy(name, world), world.reset()
    chosen = policy.choose(observation, 10)
    for shown, offered, chances in zip(chosen.items, observation.candidates.items, chosen.chances):
        assert len(set(shown.tolist())) == 10 and set(shown.tolist()) <= set(offered.tolist())
        assert (chances > 0).all() and (chances <= 1).all()
    np.testing.assert_array_equal(policy.choose(observation, 10).items, chosen.items)


def test_an_even_choice_shows_each_available_item_at_each_place_alike():
    world = small("short-video", users=1500)
    policy = make_policy("random", world)
    found, expected, sums = np.zeros((3, 400)), np.zeros(400), []
    for _ in range(100):
        observation = world.observation
        chosen = policy.choose(observation, 3)
        for place in range(3):
            found[place] += np.bincount(chosen.items[:, place], minlength=400)
        sums.append((observation.available.sum() * chosen.chances) - 1)
        expected += observation.available * (chosen.chances[:, 0].sum())
        world.step(chosen)
    np.testing.assert_allclose(np.concatenate(sums), 0, atol=1e-9, err_msg="propensities sum to one")
    often = expected > 3
    for place in range(3):
        assert surprise(found[place][often], expected[often]) < 4


def test_propensities_of_a_softmax_are_frequencies_and_sum_to_one():
    """At every place the propensities of all that could stand there, given the places before, are the softmax."""
    world = small("short-video", candidates=5)
    whole = world.reset().take(np.zeros(40_000, dtype=int))
    number = np.arange(40_000)
    observation = Observation(
        Requests(whole.requests.user, whole.requests.time), number, whole.place, whole.candidates, whole.available,
        whole.pool, whole.public,
    )  # fmt: skip
    world.public.profile[:] = np.random.default_rng(0).random(world.public.profile.shape)
    policy = make_policy("content@0.3", world)
    chosen, offered = policy.choose(observation, 3), observation.candidates.items[0]
    weights = np.exp(policy.scores(observation.take(np.array([0])))[0] / 0.3)
    first = np.array([(chosen.items[:, 0] == item).sum() for item in offered])
    assert surprise(first, 40_000 * weights / weights.sum()) < 4
    for item, weight in zip(offered, weights):
        np.testing.assert_allclose(chosen.chances[chosen.items[:, 0] == item, 0], weight / weights.sum())
    one, two = offered[:2]
    both = (chosen.items[:, 0] == one) & (chosen.items[:, 1] == two)
    np.testing.assert_allclose(chosen.chances[both, 1], weights[1] / (weights.sum() - weights[0]))


def test_better_knowledge_earns_more():
    earned = {}
    for name in ("random", "popular", "content", "oracle"):
        earned[name] = small("mall", users=150, candidates=60).log(name, days=3).events["click"].mean()
    assert earned["random"] < min(earned["popular"], earned["content"])
    assert max(earned["popular"], earned["content"]) < earned["oracle"]


def test_unknown_policies_list_the_known_ones():
    world = small("push")
    for wrong in ("best", "content@warm", "content@nan", "content@-1", "content@inf"):
        with pytest.raises(ConfigError, match="content"):
            make_policy(wrong, world)
    assert type(make_policy("taiji.world.policies:PopularPolicy", world)) is POLICIES["popular"]
