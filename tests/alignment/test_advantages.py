"""Advantages: NaN, equal groups, and exact agreement with TRL's own scalar."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from trl.trainer.utils import nanstd

from taiji.alignment.advantages import common, linear


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
def test_common_columns_of_one_reward_are_trls_advantage(seed, scale):
    """Also of one reward among others that do not vary, when the weights are equal."""
    rewards = rewards_with_gaps(seed, count=1)
    three = torch.cat([rewards, torch.where(torch.isfinite(rewards), rewards.new_tensor([0.3, 2.0]), torch.nan)], 1)
    for aggregation in ("sum_then_normalize", "normalize_then_sum"):
        expected = trl_advantage(rewards, torch.ones(1).double(), 4, aggregation, scale)
        assert torch.allclose(common(rewards, 4, aggregation, scale)[:, 0], expected, atol=3e-7)
        found = common(three, 4, aggregation, scale, total=3.0) @ torch.full((3,), 1 / 3, dtype=torch.float64)
        together = trl_advantage(three, torch.ones(3).double(), 4, aggregation, scale)
        finite = torch.isfinite(rewards[:, 0]).view(-1, 4).all(1).repeat_interleave(4)  # else the constants vary, too
        if scale != "batch" and aggregation == "sum_then_normalize":
            assert torch.allclose(found[finite], together[finite], atol=3e-7)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_a_groups_weighted_columns_point_where_trls_advantage_does(seed):
    """One positive factor per group; none at all where nothing is divided."""
    rewards = rewards_with_gaps(seed)
    weights = torch.tensor(np.random.default_rng(seed).dirichlet(np.ones(3)))
    stock = trl_advantage(rewards, weights, 4, "sum_then_normalize", "group").view(-1, 4)
    ours = (common(rewards, 4) @ weights).view(-1, 4)
    cosine = torch.nn.functional.cosine_similarity(stock, ours, dim=1)
    assert torch.allclose(cosine, torch.ones_like(cosine), atol=1e-6)
    plain = trl_advantage(rewards, weights, 4, "sum_then_normalize", "none")
    assert torch.allclose(common(rewards, 4, scale="none") @ weights, plain, atol=3e-7)
    assert (common(rewards, 4)[4] == 0).all(), "a completion without any reward moves nothing"


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([2, 4, 8]), st.integers(1, 5), st.floats(0.01, 100))
def test_common_columns_are_bounded(seed, group, count, total):
    rng = np.random.default_rng(seed)
    rewards = torch.tensor((rng.random((6 * group, count)) < 0.5) * 10.0 ** rng.integers(-6, 7, count))
    bound = count * (group - 1) / group**0.5
    assert common(rewards, group, total=total).abs().max() <= bound * (1 + 1e-9)


def test_rewards_that_trade_off_cancel_where_the_weights_are_equal():
    """The case that TRL's own scale makes singular: the weighted sum is constant, the rewards are not."""
    rewards = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    columns = common(rewards, 2, total=2.0)
    assert torch.allclose(columns, torch.tensor([[-1.0, 1.0], [1.0, -1.0]]), atol=1e-3)
    assert (columns @ torch.tensor([0.5, 0.5]) == 0).all()
    slopes = [float((columns @ torch.tensor([0.5 + d, 0.5 - d]))[1]) for d in (1e-3, 2e-3)]
    assert slopes[1] == pytest.approx(2 * slopes[0], rel=1e-3), "in proportion to the difference, not its sign"


def test_leave_one_out_baselines_are_a_constant_factor():
    rewards = torch.tensor(np.random.default_rng(0).normal(size=(12, 2)))
    grouped = rewards.view(-1, 4, 2)
    alone = (grouped - (grouped.sum(1, keepdim=True) - grouped) / 3).view(-1, 2)
    assert torch.allclose(4 / 3 * common(rewards, 4, scale="none"), alone, atol=1e-12)


def test_small_rewards_count():
    tiny = torch.tensor([[0.5], [0.5005], [0.5], [0.5005]])
    assert linear(tiny, 4).abs().min() > 0.5 and common(tiny, 4).abs().min() > 0.5


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
        common(torch.zeros(4, 1), 4, "bad")
