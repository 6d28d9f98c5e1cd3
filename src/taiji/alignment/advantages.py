"""Group advantages of several rewards: one column a reward, never summed before the weights see them.

Rewards are (N, K) with N = prompts * group, a prompt's rollouts next to each other, NaN = this reward does not apply.
Two ways to split one scalar advantage into columns A[:, k] with A_total = sum_k w_k A[:, k]:

* :func:`linear`: each reward normalised within its group on its own, so that the applied gradient is exactly
  sum_k w_k g_k;
* :func:`split`: TRL's own scalar advantage (weight, sum, then normalise; or GDPO's normalise, then sum) written as such
  a sum, so that the per-reward gradients add up to the very update stock TRL makes with these weights.
"""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-4
"""Added to the standard deviation, as TRL does."""
ZERO_DEVIATION = 1e-3
"""Below it a group's rewards count as equal: in fp32 the residue would give advantages of several thousand."""


def group_moments(rewards: Tensor, group: int) -> tuple[Tensor, Tensor, Tensor]:
    """Per-group mean, standard deviation (n - 1) and count of finite values, each (N, K), repeated over the group."""
    values = rewards.view(-1, group, rewards.size(1))
    finite = torch.isfinite(values)
    count = finite.sum(1, keepdim=True)
    mean = torch.where(finite, values, 0.0).sum(1, keepdim=True) / count.clamp(min=1)
    variance = torch.where(finite, (values - mean) ** 2, 0.0).sum(1, keepdim=True) / (count - 1).clamp(min=1)
    shape = values.shape
    return (
        mean.expand(shape).reshape_as(rewards),
        variance.sqrt().expand(shape).reshape_as(rewards),
        count.expand(shape).reshape_as(rewards),
    )


def linear(rewards: Tensor, group: int, scale: str = "group") -> Tensor:
    """Each reward's own group advantage (N, K): (r - mean) / (std + 1e-4), or mean-only with ``scale="none"``.

    ``scale="batch"`` divides by the deviation over the whole batch. Zero where the group's deviation is below 1e-3, where it
    has fewer than two finite rewards, and where the reward is NaN.
    """
    mean, deviation, count = group_moments(rewards, group)
    advantage = rewards - mean
    if scale == "group":
        advantage = advantage / (deviation + EPSILON)
    elif scale == "batch":
        advantage = advantage / (group_moments(rewards, len(rewards))[1] + EPSILON)
    elif scale != "none":
        raise ValueError(f"scale must be 'group', 'batch' or 'none', got {scale!r}")
    live = (deviation >= ZERO_DEVIATION) & (count >= 2) & torch.isfinite(rewards)
    return torch.where(live, advantage, 0.0)


def split(rewards: Tensor, weights: Tensor, group: int, aggregation: str, scale: str = "group") -> Tensor:
    """Columns (N, K) with sum_k weights[k] * column_k = the advantage TRL 1.16 computes from these rewards and weights.

    ``aggregation`` is TRL's ``multi_objective_aggregation``. As in TRL a NaN reward counts as zero in a completion's sum
    (and as its group's mean under GDPO), and a completion without any reward gets advantage zero. Groups in which a
    reward does not vary contribute exact zeros to its column.
    """
    scored = torch.isfinite(rewards).any(1)
    if aggregation == "sum_then_normalize":
        total = torch.where(scored, (torch.nan_to_num(rewards) * weights).sum(1), torch.nan)[:, None]
        parts = torch.where(scored[:, None], torch.nan_to_num(rewards), torch.nan)
        mean, deviation, _ = group_moments(parts, group)
        if scale == "group":
            spread = group_moments(total, group)[1] + EPSILON
        elif scale == "batch":
            spread = group_moments(total, len(total))[1] + EPSILON
        else:
            spread = torch.ones_like(total)
        columns = torch.where(deviation > 1e-7, (parts - mean) / spread, 0.0)
    elif aggregation == "normalize_then_sum":
        mean, deviation, count = group_moments(rewards, group)
        parts = torch.nan_to_num(torch.where(count >= 2, (rewards - mean) / (deviation + EPSILON), torch.nan))
        parts = torch.where(scored[:, None], parts, torch.nan)
        total = (parts * weights).sum(1, keepdim=True)
        columns = (parts - group_moments(parts, len(parts))[0]) / (group_moments(total, len(total))[1] + EPSILON)
    else:
        raise ValueError(f"aggregation must be 'sum_then_normalize' or 'normalize_then_sum', got {aggregation!r}")
    return torch.nan_to_num(columns)
