"""Group advantages of several rewards: one column per reward, independent of the reward weights.

Rewards are (N, K) with N = prompts * group, a prompt's rollouts consecutive, NaN = this reward does not apply. Two
functions return columns A (N, K) that do not depend on the weights w, so sum_k w_k A[:, k] is linear in w and its gradient is
exactly sum_k w_k g_k:

* :func:`common`: a group's rewards are centred and divided by one common scalar;
* :func:`linear`: each reward is divided by its own deviation.

``docs/explanation/reward-weights.md`` explains why TRL's own scalar advantage has no such columns, and the cost of the common scale.
"""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-4
"""Added to the standard deviation, as TRL does."""
RESIDUE = 1e-6
"""Rewards of a group that differ by less than this share of the largest one count as equal: rounding of float32 values."""
LEAVE_ONE_OUT = "leave-one-out"
"""Value of ``scale_rewards``: no scale, and the mean of a rollout's siblings for the baseline, as in RLOO (arXiv 2402.14740)."""


def group_moments(rewards: Tensor, group: int) -> tuple[Tensor, Tensor, Tensor]:
    """Per-group mean, standard deviation (n - 1) and count of finite values, each (N, K), repeated over the group.

    The deviation is an exact zero where the values differ by no more than the rounding of float32.
    """
    values = rewards.view(-1, group, rewards.size(1))
    finite = torch.isfinite(values)
    count = finite.sum(1, keepdim=True)
    filled = torch.where(finite, values, 0.0)
    mean = filled.sum(1, keepdim=True) / count.clamp(min=1)
    variance = torch.where(finite, (values - mean) ** 2, 0.0).sum(1, keepdim=True) / (count - 1).clamp(min=1)
    deviation = variance.sqrt()
    deviation = torch.where(deviation > RESIDUE * filled.abs().amax(1, keepdim=True), deviation, 0.0)
    shape = values.shape
    return (
        mean.expand(shape).reshape_as(rewards),
        deviation.expand(shape).reshape_as(rewards),
        count.expand(shape).reshape_as(rewards),
    )


def without_itself(count: Tensor) -> Tensor:
    """Return n / (n - 1), the factor from the distance to the mean of n values to that to the mean of the others; 0 if there are none."""
    return torch.where(count > 1, count.double() / (count - 1).clamp(min=1), 0.0)


def weighted_sum(rewards: Tensor, weights: Tensor, group: int, aggregation: str = "sum_then_normalize") -> Tensor:
    """Return the scalar reward (N, 1) of TRL's group advantages: sum_k w_k r_k, NaN where no reward applies.

    Under ``normalize_then_sum`` the rewards are those that are normalised within their group.

    Args:
        rewards: (N, K).
        weights: (K,).
        group: rollouts per prompt.
        aggregation: TRL's ``multi_objective_aggregation``.
    """
    values = rewards.double()
    scored = torch.isfinite(values).any(1, keepdim=True)
    parts = linear(values, group) if aggregation == "normalize_then_sum" else values
    total = (parts * weights.to(parts)).nansum(1, keepdim=True)
    return torch.where(scored, total, torch.nan)


def groups_with_signal(columns: Tensor, group: int) -> Tensor:
    """Return bool (prompts,): groups in which any entry of the advantage columns (N, D) differs from zero."""
    return (columns != 0).view(-1, group * columns.size(1)).any(1)


def linear(rewards: Tensor, group: int, scale: str = "group", total: float = 1.0) -> Tensor:
    """Each reward's own group advantage (N, K): (r - mean) / (std + 1e-4), or mean-only with ``scale="none"``.

    ``scale="batch"`` divides by the deviation over the whole batch, ``scale="leave-one-out"`` takes the mean of the siblings that
    have the reward instead of the group's. Zero where the group's values are equal, where it has
    fewer than two finite rewards, and where the reward is NaN. ``total`` multiplies the result: the sum of the weights that
    TRL would apply, when the weights that will be applied sum to one.
    """
    values = rewards.double()
    mean, deviation, count = group_moments(values, group)
    advantage = values - mean
    if scale == "group":
        advantage = advantage / (deviation + EPSILON)
    elif scale == "batch":
        advantage = advantage / (group_moments(values, len(values))[1] + EPSILON)
    elif scale == LEAVE_ONE_OUT:
        advantage = advantage * without_itself(count)
    elif scale != "none":
        raise ValueError(f"scale must be 'group', 'batch', 'none' or 'leave-one-out', got {scale!r}")
    live = (deviation > 0) & (count >= 2) & torch.isfinite(values)
    return (total * torch.where(live, advantage, 0.0)).to(rewards.dtype)


def common(
    rewards: Tensor, group: int, aggregation: str = "sum_then_normalize", scale: str = "group", total: float = 1.0
) -> Tensor:
    """Columns (N, K) of rewards on one scale per group (or batch): ``total`` * (r_k - mean_k) / (S + 1e-4).

    S = ``total`` / K * sqrt(sum_k std_k^2) is the deviation that the equally weighted sum would have if the rewards were
    uncorrelated. So with equal weights a group in which one reward varies has exactly TRL's advantage, an entry is never larger
    than K (G - 1) / sqrt(G), and nothing is singular where the weighted sum happens to be constant.

    ``aggregation`` is TRL's ``multi_objective_aggregation``: with ``normalize_then_sum`` each reward is normalised within its
    group first, and S is taken over the batch. As in TRL a NaN reward counts as zero in a completion's sum (as its group's
    mean under ``normalize_then_sum``), and a completion without any reward gets advantage zero.

    Args:
        rewards: (N, K).
        group: rollouts per prompt.
        aggregation: ``sum_then_normalize`` or ``normalize_then_sum``.
        scale: ``scale_rewards``: what S is taken over ("group", "batch"), or no S at all ("none", "leave-one-out"). The last one
            multiplies by n / (n - 1), n the group's completions that have a reward: r_k minus the mean of the others.
        total: sum of the weights that TRL would apply, when the weights that will be applied sum to one.
    """
    values = rewards.double()
    scored = torch.isfinite(values).any(1, keepdim=True)
    if aggregation == "sum_then_normalize":
        parts = torch.where(scored, torch.where(torch.isfinite(values), values, 0.0), torch.nan)
        mean, deviation, count = group_moments(parts, group)
        spread = deviation if scale == "group" else group_moments(parts, len(parts))[1]
    elif aggregation == "normalize_then_sum":
        mean, deviation, count = group_moments(values, group)
        live = (deviation > 0) & (count >= 2) & torch.isfinite(values)
        parts = torch.where(scored, torch.where(live, (values - mean) / (deviation + EPSILON), 0.0), torch.nan)
        mean, deviation, _ = group_moments(parts, len(parts))
        spread = deviation
    else:
        raise ValueError(f"aggregation must be 'sum_then_normalize' or 'normalize_then_sum', got {aggregation!r}")
    centred = total * torch.where((deviation > 0) & scored, parts - mean, 0.0)
    if aggregation == "sum_then_normalize" and scale in ("none", LEAVE_ONE_OUT):
        return (centred * without_itself(count) if scale == LEAVE_ONE_OUT else centred).to(rewards.dtype)
    width = abs(total) / rewards.size(1) * spread.square().sum(1, keepdim=True).sqrt()
    return (centred / (width + EPSILON)).to(rewards.dtype)
