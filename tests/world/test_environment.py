"""Outside agents run in the worlds."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from tests.world.small import small

from taiji.core.component import NO_ITEM, Slate
from taiji.core.errors import ConfigError, InputError
from taiji.world.scenario import scenarios

pytest.importorskip("gymnasium", reason="the extra `world` is not installed")
from gymnasium.utils.env_checker import check_env

from taiji.world.environment import WorldEnv
from taiji.world.world import World


@pytest.mark.parametrize("name", scenarios())
def test_gymnasiums_checker_passes_without_a_warning(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(WorldEnv(name, days=8, items=230), skip_render_check=True)


def test_a_world_that_is_given_has_its_own_seed_or_the_one_that_is_named():
    first = lambda env: env._features()  # noqa: E731
    named = first(WorldEnv("push", seed=5, users=20, days=2))
    given = World("push", 5, users=20, candidates=20, days=2)
    np.testing.assert_array_equal(first(WorldEnv(given)), named)
    assert not np.array_equal(first(WorldEnv(given, seed=6)), named)
    np.testing.assert_array_equal(first(WorldEnv(given, seed=5)), named)
    with pytest.raises(ConfigError, match="users"):
        WorldEnv(given, users=30)


def test_actions_outside_the_space_are_errors():
    env = WorldEnv("push", days=2)
    env.reset(seed=1)
    for wrong in (np.full(20, 6), np.zeros(19, dtype=int), np.full(20, -1)):
        with pytest.raises(InputError, match="action space"):
            env.step(wrong)


def test_an_episode_ends_with_the_days_and_its_reward_is_that_of_the_world():
    env = WorldEnv(small("retention", users=30, days=2))
    _, about = env.reset(seed=3)
    total, steps, over = 0.0, 0, False
    while not over:
        _, reward, terminated, over, about = env.step(np.ones(env.action_space.shape, dtype=np.float32))
        total, steps = total + reward, steps + 1
        assert not terminated
    assert about["slot"] == 24 and steps > 10 and total > 0


def test_places_without_a_candidate_have_no_part_in_the_predictions():
    env = WorldEnv(small("retention", users=30, days=1, candidates=20))
    env.reset(seed=3)
    seen = env._current
    items = seen.candidates.items
    fewer, padded = (replace(seen, candidates=Slate(kept)) for kept in (items[:, :12], items.copy()))
    padded.candidates.items[:, 12:] = NO_ITEM
    found = env.predictions(padded)
    assert np.allclose(found[:, :12], env.predictions(fewer), rtol=0, atol=1e-12) and not found[:, 12:].any()


def test_knowing_what_to_fuse_earns_more():
    earned = []
    for weights in ((0, 0, 0, 0, 1.0), (1.0, 0, 0, 0, 0)):
        env = WorldEnv(small("retention", users=200, days=1, candidates=60))
        assert env.fused[-1] == "pleased"
        env.reset(seed=3)
        action, over = np.tile(np.array(weights, dtype=np.float32), (200, 1)), False
        while not over:
            _, _, _, over, _ = env.step(action)
        earned.append(env.world.public.seen.sum())
    assert earned[0] > earned[1], "who fuses for satisfaction keeps more users"


@pytest.mark.integration
def test_ppo_of_stable_baselines_runs_and_learns():
    sb3 = pytest.importorskip("stable_baselines3", reason="the extra `peers` is not installed")
    env = WorldEnv("push", users=20, days=7)
    agent = sb3.PPO("MlpPolicy", env, n_steps=64, batch_size=32, seed=0, device="cpu").learn(512)
    observation, _ = env.reset(seed=0)
    action, _ = agent.predict(observation, deterministic=True)
    assert env.action_space.contains(action)
    sb3.PPO("MlpPolicy", WorldEnv("retention", users=20, days=3), n_steps=64, batch_size=32, seed=0).learn(128)
