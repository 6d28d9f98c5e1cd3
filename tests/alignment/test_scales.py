"""Totals, zeros and signs of reward weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from taiji.alignment.scales import RewardScale
from taiji.core.errors import ConfigError


def test_the_total_stays_and_ones_are_the_default():
    scale = RewardScale.of(None, 3, adaptive=True)
    assert scale.total == 3 and scale.initial is None and scale.count == 3
    assert np.allclose(scale.applied(np.array([0.5, 0.25, 0.25])), [1.5, 0.75, 0.75])
    appended = RewardScale.of([0.5, 0.25], 3, adaptive=True)
    assert appended.total == 1.75 and np.allclose(appended.initial, np.array([0.5, 0.25, 1.0]) / 1.75)


def test_a_zero_is_left_out_and_a_penalty_turns_its_reward():
    scale = RewardScale.of([1.0, 0.0, -0.5], 3, adaptive=True)
    rewards = torch.tensor([[1.0, 2.0, 3.0], [4.0, float("nan"), 6.0]])
    assert scale.rewards(rewards).tolist() == [[1.0, -3.0], [4.0, -6.0]]
    assert np.allclose(scale.initial, [2 / 3, 1 / 3])
    assert np.allclose(scale.applied(np.array(scale.initial)), [1.0, 0.0, -0.5]), "the start is what was given"
    assert scale.restricted((3.0, 9.0, 1.0)) == (3.0, 1.0) and scale.restricted((3.0, 1.0)) == (3.0, 1.0)


def test_constant_weights_take_part_whatever_they_are():
    scale = RewardScale.of([1.0, 0.0, -0.5], 3, adaptive=False)
    rewards = torch.ones(2, 3)
    assert torch.equal(scale.rewards(rewards), rewards) and np.allclose(scale.total * scale.given, [1.0, 0.0, -0.5])


@pytest.mark.parametrize("weights", [[0.0, 0.0], [1.0, float("nan")], [float("inf"), 1.0]], ids=["zeros", "nan", "inf"])
def test_numbers_that_do_not_tell_where_to_start_are_rejected(weights):
    with pytest.raises(ConfigError, match="reward_weights"):
        RewardScale.of(weights, 2, adaptive=True)
