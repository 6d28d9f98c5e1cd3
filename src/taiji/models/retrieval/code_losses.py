"""Additional losses of the decoder over item codes: one on its thinking steps, which predict clusters of codes, and one
on skipped exposures."""

from __future__ import annotations

import torch
from torch.nn import functional

NEARLY_ONE = 1 - 1e-6


def skip_loss(logits: torch.Tensor, skipped: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the mean of ``−log(1 − p(code))`` over skipped exposures (DualGR); 0 if there are none.

    An exposure with the target's first code is ignored, because it would contradict the target.

    Args:
        logits: (M, V) logits of the first code.
        skipped: (M, S) first codes of exposures, −1 for none.
        target: (M,) first codes of the targets.
    """
    counts = (skipped >= 0) & (skipped != target[:, None])
    if not bool(counts.any()):
        return logits.sum() * 0
    chance = torch.softmax(logits, dim=1).gather(1, skipped.clamp(min=0)).clamp(max=NEARLY_ONE)
    return -torch.log1p(-chance)[counts].mean()


def cluster_loss(
    thoughts: torch.Tensor, table: torch.Tensor, cluster: torch.Tensor, target: torch.Tensor, temperature: float = 0.1
) -> torch.Tensor:
    """Return the mean cross-entropy of the target code's cluster (S²GR). The logits are the cosines between a thinking
    state and the mean vector of each cluster.

    Args:
        thoughts: (M, d) thinking states.
        table: (V, d) vectors of the codes of a level.
        cluster: (V,) int64 cluster of each code, numbered from 0 without gaps.
        target: (M,) target codes of the level.
        temperature: divisor of the cosines.
    """
    count = int(cluster.max()) + 1
    sums = table.new_zeros(count, table.shape[1]).index_add(0, cluster, table)
    means = sums / torch.bincount(cluster, minlength=count)[:, None]
    cosines = functional.normalize(thoughts, dim=1) @ functional.normalize(means, dim=1).T
    return functional.cross_entropy(cosines / temperature, cluster[target])
