"""Advantages: NaN, equal groups, and exact agreement with TRL's own scalar."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.alignment.jobs import parameters, vowels
from trl import RLOOConfig, RLOOTrainer
from trl.trainer.utils import nanstd

from taiji.alignment import ParetoGRPOConfig, ParetoGRPOTrainer
from taiji.alignment.advantages import common, linear, weighted_sum
from taiji.core.errors import ConfigError
from taiji.nn.weighting_rules import RULES


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


def leave_one_out(total: torch.Tensor, group: int) -> torch.Tensor:
    """(N,) distance to the mean of the siblings that are numbers, as TRL's RLOO takes it; 0 without a sibling."""
    grouped = total.view(-1, group)
    others = (torch.nansum(grouped, 1, keepdim=True) - grouped) / ((~grouped.isnan()).sum(1, keepdim=True) - 1)
    return torch.nan_to_num(grouped - others).flatten()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.1, 10))
def test_leave_one_out_columns_add_up_to_rloos_advantage(seed, total):
    """For any weights, NaN and completions without any reward included."""
    rewards = rewards_with_gaps(seed)
    weights = torch.tensor(np.random.default_rng(seed).dirichlet(np.ones(3)))
    found = common(rewards, 4, scale="leave-one-out", total=total) @ weights
    sums = weighted_sum(rewards, total * weights, 4)[:, 0]
    assert torch.allclose(found, leave_one_out(sums, 4), atol=3e-7 * total)
    mean_only = common(rewards, 4, scale="none", total=total)
    whole = torch.isfinite(rewards).any(1).view(-1, 4).all(1).repeat_interleave(4)
    left_out = common(rewards, 4, scale="leave-one-out", total=total)
    assert torch.allclose(left_out[whole], 4 / 3 * mean_only[whole]), "one factor for all rewards"
    for k in range(3):
        alone = linear(rewards, 4, "leave-one-out", total)[:, k]
        assert torch.allclose(alone, leave_one_out(total * rewards[:, k], 4), atol=3e-7 * total)


def inputs(*prompts):
    return [{"prompt": prompt} for prompt in prompts for _ in range(4)]


def test_one_rewards_advantages_are_those_of_trls_rloo(job):
    """The same rollouts in TRL's own trainer."""
    found = []
    for cls, config, options in (
        (RLOOTrainer, RLOOConfig, {"beta": 0.0}),
        (ParetoGRPOTrainer, ParetoGRPOConfig, {"scale_rewards": "leave-one-out", "share_prefixes": False}),
    ):
        trainer = job(cls, config, rewards=[vowels], **options)
        trainer.model.train()
        torch.manual_seed(0)
        found.append(trainer._generate_and_score_completions(inputs("milk", "rice")))
    stock, ours = found
    assert torch.equal(stock["completion_ids"], ours["completion_ids"])
    assert torch.allclose(stock["advantages"], ours["advantages"], atol=1e-7) and stock["advantages"].abs().max() > 0.01


def test_a_step_with_the_loss_of_dr_grpo_is_rloos(job):
    """On policy, up to the constant length that dr_grpo divides by."""
    moved = []
    common_options = {"rewards": [vowels], "optim": "sgd", "max_grad_norm": 1e9, "max_steps": 1, "beta": 0.0}
    for cls, config, options in (
        (RLOOTrainer, RLOOConfig, {"learning_rate": 0.5}),
        (
            ParetoGRPOTrainer,
            ParetoGRPOConfig,
            {
                "learning_rate": 3.0,  # six tokens
                "scale_rewards": "leave-one-out",
                "loss_type": "dr_grpo",
                "weighting": "fixed",
                "share_prefixes": False,
            },
        ),
    ):
        trainer = job(cls, config, **common_options, **options)
        before = parameters(trainer).clone()
        trainer.train()
        moved.append(parameters(trainer) - before)
    assert torch.allclose(*moved, atol=1e-4 * float(moved[0].abs().max()))


@pytest.mark.parametrize("aggregation", [None, "linear"])
@pytest.mark.parametrize("weighting", [name for name in RULES if name != "gdpo"])
def test_every_rule_weighs_leave_one_out_advantages(job, weighting, aggregation):
    trainer = job(
        ParetoGRPOTrainer,
        ParetoGRPOConfig,
        weighting=weighting,
        aggregation=aggregation,
        scale_rewards="leave-one-out",
        reward_weights=[2.0, 1.0],
    )
    trainer.model.train()
    batch = trainer._generate_and_score_completions(inputs("milk", "rice"))
    rewards = torch.tensor([list(trainer._logs["rewards"][name]) for name in ("vowels", "spaces")]).T
    each = torch.stack([leave_one_out(rewards[:, k], 4) for k in range(2)], 1)
    assert torch.allclose(batch["advantages"], each @ trainer.reward_weights, atol=1e-6)
    assert trainer.reward_weights.sum() == pytest.approx(3.0) and batch["advantages"].abs().max() > 0.01
    assert list(trainer._logs["advantages"]) == pytest.approx(batch["advantages"].tolist())
    if trainer.args.source == "gradients":
        assert torch.allclose(batch["reward_advantages"], 3.0 * each, atol=1e-6), "the weights come on top"


def test_robust_weights_do_not_see_the_factor_of_leave_one_out(job):
    """All g_k are G / (G - 1) times what they were: the ratio of indicator and squared norm stays."""
    runs = []
    for scale, rate in (("none", 4 / 3), ("leave-one-out", 1.0)):
        trainer = job(
            ParetoGRPOTrainer,
            ParetoGRPOConfig,
            scale_rewards=scale,
            optim="sgd",
            learning_rate=rate,
            max_grad_norm=1e9,
        )
        trainer.train()
        lines = trainer.state.log_history[:-1]
        runs.append((parameters(trainer), trainer.rule.weights, [line["indicator/vowels"] for line in lines]))
    (a, weights, indicators), (b, others, larger) = runs
    assert torch.allclose(a, b, atol=1e-6) and np.allclose(weights, others, atol=1e-6)
    assert np.allclose(16 / 9 * np.array(indicators), larger, rtol=1e-3) and np.ptp(weights) > 1e-3


def test_where_there_is_no_leave_one_out_baseline(job):
    for options in ({"weighting": "gdpo"}, {"multi_objective_aggregation": "normalize_then_sum"}):
        with pytest.raises(ConfigError, match="cannot have a leave-one-out baseline"):
            job(ParetoGRPOTrainer, ParetoGRPOConfig, scale_rewards="leave-one-out", **options)
    with pytest.raises(ConfigError, match="scale_rewards has an unknown value"):
        job(ParetoGRPOTrainer, ParetoGRPOConfig, scale_rewards="rloo")


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["sum_then_normalize", "normalize_then_sum"]))
def test_the_weighted_sum_is_what_trl_normalises(seed, aggregation):
    rewards, weights = rewards_with_gaps(seed), torch.tensor([2.0, -1.0, 0.5]).double()
    found = weighted_sum(rewards, weights, 4, aggregation)
    if aggregation == "sum_then_normalize":
        stock = trl_advantage(rewards, weights, 4, aggregation, "none")
        assert torch.allclose(trl_advantage(found, torch.ones(1).double(), 4, aggregation, "none"), stock, atol=1e-9)
    else:
        normalised = torch.nan_to_num(found - torch.nanmean(found)) / (nanstd(found) + 1e-4)
        stock = trl_advantage(rewards, weights, 4, aggregation, "group")
        assert torch.allclose(normalised[:, 0], stock, atol=1e-6)


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


def test_groups_without_a_difference_have_advantage_zero_exactly():
    rng = np.random.default_rng(0)
    for _ in range(50):
        rewards = torch.tensor(rng.random((12, 3)), dtype=torch.float64)
        rewards[4:8] = rewards[4]
        for aggregation in ("sum_then_normalize", "normalize_then_sum"):
            assert not common(rewards, 4, aggregation)[4:8].any()
