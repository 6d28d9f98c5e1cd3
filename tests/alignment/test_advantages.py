"""Advantages: NaN, equal groups, and exact agreement with TRL's own scalar."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from trl.trainer.utils import nanstd

from taiji.alignment.advantages import linear, split


def rewards_with_gaps(seed: int, prompts: int = 5, group: int = 4, count: int = 3) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(prompts * group, count)) * rng.uniform(0.2, 5, size=count)
    values[rng.random(values.shape) < 0.15] = np.nan
    values[:group, 0] = 0.3  # a group that does not vary
    values[group] = np.nan  # a completion nothing applies to
    return torch.tensor(values)


def trl_advantage(
    rewards: torch.Tensor, weights: torch.Tensor, group: int, aggregation: str, scale: str
) -> torch.Tensor:
    """The scalar advantage as TRL 1.16 documents it, in float64."""
    unscored = torch.isnan(rewards).all(1)
    if aggregation == "sum_then_normalize":
        total = (rewards * weights).nansum(1)
        total[unscored] = torch.nan
        grouped = total.view(-1, group)
        mean = torch.nanmean(grouped, 1).repeat_interleave(group)
        std = {
            "group": nanstd(grouped, dim=1).repeat_interleave(group),
            "batch": nanstd(total),
            "none": torch.tensor(1.0 - 1e-4),
        }[scale]
        result = (total - mean) / (std + 1e-4)
    else:
        grouped = rewards.view(-1, group, rewards.size(1))
        each = (grouped - torch.nanmean(grouped, 1, keepdim=True)) / (nanstd(grouped, dim=1, keepdim=True) + 1e-4)
        total = (each.view_as(rewards) * weights).nansum(1)
        total[unscored] = torch.nan
        result = (total - torch.nanmean(total)) / (nanstd(total) + 1e-4)
    return torch.nan_to_num(result)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["group", "batch", "none"]))
def test_split_adds_up_to_trl(seed, scale):
    rewards = rewards_with_gaps(seed)
    weights = torch.tensor(np.random.default_rng(seed).dirichlet(np.ones(3)))
    for aggregation in ("sum_then_normalize", "normalize_then_sum"):
        columns = split(rewards, weights, 4, aggregation, scale)
        expected = trl_advantage(rewards, weights, 4, aggregation, scale)
        # TRL's nanstd takes its n / (n - 1) in float32 whatever the rewards are: relative errors of 1e-8.
        assert torch.allclose(columns @ weights, expected, atol=3e-7)
        assert (columns[4] == 0).all(), "a completion without any reward moves nothing"


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_linear_columns(seed):
    rewards = rewards_with_gaps(seed)
    columns = linear(rewards, 4)
    assert torch.isfinite(columns).all()
    assert (columns[torch.isnan(rewards)] == 0).all()
    assert (columns[:4, 0] == 0).all(), "equal rewards give no advantage"
    assert torch.allclose(columns.view(-1, 4, 3).sum(1), torch.zeros(5, 3, dtype=torch.float64), atol=1e-9)
    live = columns.view(-1, 4, 3).abs().sum(1) > 0
    assert torch.allclose(linear(rewards * 1e4, 4), linear(rewards * 1e6, 4), atol=1e-6), (
        "a large scale does not matter"
    )
    assert torch.allclose(linear(rewards, 4, "none"), torch.where(columns != 0, linear(rewards, 4, "none"), 0.0))
    assert live.any()


def test_rescaling_a_reward_leaves_std_mode_unchanged():
    rewards = torch.tensor(np.random.default_rng(0).normal(size=(16, 2)))
    scaled = linear(rewards * torch.tensor([50.0, 1.0]), 4)
    assert torch.allclose(scaled, linear(rewards, 4), rtol=1e-3), "up to the 1e-4 under the fraction"
    assert not torch.allclose(
        linear(rewards * torch.tensor([50.0, 1.0]), 4, "none"), linear(rewards, 4, "none"), rtol=1e-1
    )


def test_fp32_residue_of_equal_rewards_gives_no_advantage():
    rewards = torch.full((8, 2), 0.1, dtype=torch.float32)
    rewards[0, 0] += 3e-8
    assert (linear(rewards, 4) == 0).all()
    assert (linear(rewards * torch.nan, 4) == 0).all()
    one = torch.full((4, 1), torch.nan)
    one[2] = 1.0
    assert (linear(one, 4) == 0).all(), "fewer than two finite rewards"


def test_unknown_modes_are_named():
    with pytest.raises(ValueError, match="scale"):
        linear(torch.zeros(4, 1), 4, "bad")
    with pytest.raises(ValueError, match="aggregation"):
        split(torch.zeros(4, 1), torch.ones(1), 4, "bad")
