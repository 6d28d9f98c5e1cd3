"""Target attention over an item sequence."""

from __future__ import annotations

import math

import torch
from torch import nn

from taiji.ranking.batches import AGES


class TargetAttention(nn.Module):
    """What in the sequence speaks about the target item.

    Multi-head scaled dot-product attention with the target as the only query, a learnt bias by the age of each
    interaction, and an empty slot with logit 0, so that a sequence with nothing relevant adds nothing. The
    log-sum-exp of the logits is handed on too: it tells how much relevant history there is, which the softmax hides
    (DIN, Zhou et al. 2018, drops the softmax for that reason). Deviation from DIN: dot products instead of a small
    network per pair, since keys are then computed once a distinct item.

    Args:
        width: width of an item's representation.
        dimension: width of keys and values a head.
        heads: number of heads.
    """

    def __init__(self, width: int, dimension: int, heads: int) -> None:
        super().__init__()
        self.heads, self.dimension = heads, dimension
        self.query = nn.Linear(width, heads * dimension, bias=False)
        self.key = nn.Linear(width, heads * dimension, bias=False)
        self.value = nn.Linear(width, dimension, bias=False)
        self.age_bias = nn.Parameter(torch.zeros(AGES, heads))
        self.out_width = heads * dimension + dimension + heads

    def forward(self, items: torch.Tensor, item: torch.Tensor, sequence: torch.Tensor, age: torch.Tensor | None) -> torch.Tensor:
        """Attend.

        Args:
            items: (U, width) distinct items, row 0 the padding; item: (B,) and sequence: (B, L) positions in it;
            age: (B, L) age buckets or None.

        Returns:
            (B, heads * dimension + dimension + heads): pooled values, their product with the target's value, and log-sum-exp.
        """
        size, length = sequence.shape
        flat = sequence.reshape(-1)
        keys = self.key(items).index_select(0, flat).view(size, length, self.heads, self.dimension)
        values = self.value(items).index_select(0, flat).view(size, length, self.dimension)
        query = self.query(items).index_select(0, item).view(size, self.heads, self.dimension)
        logits = torch.einsum("blhd,bhd->bhl", keys, query) / math.sqrt(self.dimension)
        if age is not None:
            logits = logits + self.age_bias.index_select(0, age.reshape(-1)).view(size, length, self.heads).transpose(1, 2)
        logits = logits.masked_fill((sequence == 0).unsqueeze(1), -1e9)
        logits = torch.cat([logits, torch.zeros_like(logits[:, :, :1])], dim=2)
        weights = torch.softmax(logits, dim=2)[:, :, :-1]
        pooled = torch.bmm(weights, values)
        target = self.value(items).index_select(0, item)
        return torch.cat([pooled.flatten(1), pooled.mean(dim=1) * target, torch.logsumexp(logits, dim=2)], dim=1)
