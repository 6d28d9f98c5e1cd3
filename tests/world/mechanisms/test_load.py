"""No more lists are computed than fit; the others are what was left over."""

from __future__ import annotations

import numpy as np
import pytest
from tests.world.small import small

from taiji.core.errors import ConfigError
from taiji.world.log import run
from taiji.world.mechanisms.load import Load
from taiji.world.observation import Choice
from taiji.world.policies import make_policy


def test_the_capacity_of_a_slot_is_never_exceeded_and_used_up_at_the_peak():
    world = small("peak-load", users=600)
    load = world.find(Load)
    by_slot: dict[int, list[int]] = {}
    for exposure in run(world, make_policy("random", world), 3):
        served = exposure.context["served_from"]
        counts = by_slot.setdefault(exposure.slot, [0, 0])
        counts[0] += int((served == "real time").sum())
        counts[1] += len(served)
    computed, asked = np.array(list(by_slot.values())).T
    assert computed.max() == load.capacity == load.most
    np.testing.assert_array_equal(computed, np.minimum(asked, load.capacity))
    assert (asked > load.capacity).mean() > 0.1


def test_the_cache_holds_what_was_ranked_behind_and_is_shown_once():
    world = small("peak-load", users=40)
    load = world.find(Load)
    load.capacity = 10**6
    for _ in range(40):
        observation = world.observation
        ranking = observation.candidates.items[:, :12]
        world.step(Choice(ranking, np.full(ranking.shape, 0.25)))
        np.testing.assert_array_equal(load.cached(observation.requests.user), ranking[:, 6:])
    served = 0
    for _ in range(40):
        users = world.observation.requests.user
        cached = load.cached(users).copy()
        there = load.has_cache(users)
        exposure = world.step(Choice(world.observation.candidates.items[:, :12], row={"fresh": np.zeros(len(users))}))
        assert (exposure.context["served_from"] == "cache").all()
        alive = np.where(world.available(exposure.slot)[np.maximum(cached, 0)] & (cached >= 0), cached, -1)
        for row in np.flatnonzero(there & (alive >= 0).all(axis=1)):
            np.testing.assert_array_equal(exposure.items[row], cached[row])
            assert (exposure.display["propensity"][row] == 0.25).all()
            served += 1
        assert not load.has_cache(users).any(), "what was shown is not cached any more"
    assert served >= 2


def test_in_the_twin_the_cache_costs_nothing():
    world = small("peak-load", users=200)
    twin = world.twin("load")
    for place in (world, twin):
        place.find(Load).capacity = 1
    stale, fresh = (place.log("oracle", days=1).events["click"].mean() for place in (world, twin))
    assert fresh > 1.3 * stale
    assert (twin.log("oracle", days=1).events["served_from"] == "cache").mean() > 0.5


def test_the_regret_of_the_cache_is_what_its_lists_are_worth_less():
    world = small("peak-load", users=200)
    policy = make_policy("oracle", world)
    for _ in range(25):
        world.step(policy.choose(world.observation, 12))
    observation = world.observation
    while not world.find(Load).has_cache(observation.requests.user).any():
        world.step(policy.choose(observation, 12))
        observation = world.observation
    regret = world.truth.cache_regret(observation, policy.choose(observation, 6).items)
    there = world.find(Load).has_cache(observation.requests.user)
    assert (np.isnan(regret) == ~there).all() and np.nanmean(regret) > 0
    same = world.truth.cache_regret(observation, world.find(Load).cached(observation.requests.user))
    assert (same[there] == 0).all()
    with pytest.raises(ConfigError, match="no cache"):
        small("mall").truth.cache_regret(observation, observation.candidates.items[:, :2])
