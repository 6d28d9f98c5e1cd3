"""Group advantages of several rewards: one column per reward, independent of the reward weights.

Rewards are (N, K) with N = prompts * group. The rollouts of a prompt are consecutive rows, and NaN means that the
reward does not apply. Two functions return columns A (N, K) that do not depend on the weights w:

* :func:`common`: the rewards of a group are centred and divided by one common scalar;
* :func:`linear`: each reward is divided by its own standard deviation.

The advantage sum_k w_k A[:, k] is therefore linear in w, and the gradient of a loss with this advantage is exactly
sum_k w_k g_k, where g_k is the gradient with the advantage A[:, k].

``docs/explanation/reward-weights.md`` explains why TRL's scalar advantage cannot be written as such columns, and the
disadvantage of the common scale.
"""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-4
"""Number added to the standard deviation, as in TRL."""
RESIDUE = 1e-6
"""Relative tolerance for equal rewards. A standard deviation of at most this share of the group's largest absolute
reward counts as zero."""
LEAVE_ONE_OUT = "leave-one-out"
"""Value of ``scale_rewards``: no scaling, and the mean of the prompt's other rollouts as baseline, as in RLOO (arXiv
2402.14740)."""


def group_moments(rewards: Tensor, group: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return per-group mean, standard deviation (n - 1) and number of finite values, each (N, K), repeated over the
    group.

    The standard deviation is exactly zero if the values differ by no more than float32 rounding.
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
    """Return n / (n - 1) for each count n; 0 for n <= 1.

    Multiplied by this factor, a value minus the mean of all n values is the value minus the mean of the n - 1 others.
    """
    return torch.where(count > 1, count.double() / (count - 1).clamp(min=1), 0.0)


def weighted_sum(rewards: Tensor, weights: Tensor, group: int, aggregation: str = "sum_then_normalize") -> Tensor:
    """Return the scalar reward (N, 1) from which TRL computes group advantages: sum_k w_k r_k, NaN where no reward
    applies.

    With ``normalize_then_sum``, each reward is first normalised within its group.

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
    """Return a mask (prompts,): True for groups in which some entry of the advantage columns (N, D) differs from
    zero."""
    return (columns != 0).view(-1, group * columns.size(1)).any(1)


def linear(rewards: Tensor, group: int, scale: str = "group", total: float = 1.0) -> Tensor:
    """Return the group advantage of each reward on its own scale (N, K): (r - mean) / (std + 1e-4).

    ``scale="none"`` does not divide, and ``scale="batch"`` divides by the standard deviation over the whole batch.
    ``scale="leave-one-out"`` does not divide, and subtracts the mean of the prompt's other rollouts that have the
    reward. An entry is zero if the values of the group are equal, if the group has fewer than two finite rewards, or if
    the reward is NaN. The result is multiplied by ``total``, the sum of TRL's weights, because the weights w by which
    the columns are multiplied sum to one.
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
    """Return columns (N, K) of rewards on one scale per group (or batch): ``total`` * (r_k - mean_k) / (S + 1e-4).

    S = ``total`` / K * sqrt(sum_k std_k^2) is the standard deviation that the equally weighted sum would have if the
    rewards were uncorrelated. With equal weights, a group in which only one reward varies therefore has exactly TRL's
    advantage. In a group of G rollouts, no entry is larger than K (G - 1) / sqrt(G). The columns stay finite where the
    weighted sum happens to be constant.

    ``aggregation`` is TRL's ``multi_objective_aggregation``: with ``normalize_then_sum``, each reward is first
    normalised within its group, and S is computed over the batch. As in TRL, a NaN reward counts as zero in the sum of
    a completion (as the mean of its group with ``normalize_then_sum``), and a completion without any reward has
    advantage zero.

    Args:
        rewards: (N, K).
        group: rollouts per prompt.
        aggregation: ``sum_then_normalize`` or ``normalize_then_sum``.
        scale: TRL's ``scale_rewards``: S is computed over the "group" or the "batch", or not used at all ("none",
            "leave-one-out"). "leave-one-out" multiplies r_k - mean_k by n / (n - 1), which gives r_k minus the mean of
            the others; n is the number of completions of the group that have any reward.
        total: sum of TRL's weights, because the weights w by which the columns are multiplied sum to one.
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
        # The mean is 0 up to rounding. Groups without a difference stay at exactly 0.
        mean = torch.where(live.any(1, keepdim=True), mean, 0.0)
        spread = deviation
    else:
        raise ValueError(f"aggregation must be 'sum_then_normalize' or 'normalize_then_sum', got {aggregation!r}")
    centred = total * torch.where((deviation > 0) & scored, parts - mean, 0.0)
    if aggregation == "sum_then_normalize" and scale in ("none", LEAVE_ONE_OUT):
        return (centred * without_itself(count) if scale == LEAVE_ONE_OUT else centred).to(rewards.dtype)
    width = abs(total) / rewards.size(1) * spread.square().sum(1, keepdim=True).sqrt()
    return (centred / (width + EPSILON)).to(rewards.dtype)
