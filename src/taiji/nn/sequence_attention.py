"""Target attention over an item sequence."""

from __future__ import annotations

import math

import torch
from torch import nn

from taiji.nn.lookup import look_up


class TargetAttention(nn.Module):
    """Module that pools a sequence by attention, with the target item as the query.

    The target is the only query. Several heads of dot-product attention share one projection of the sequence. The same
    vectors serve as keys and as values, as in DIN (Zhou et al. 2018), so that an interaction is gathered only once. The
    logits have learnt biases that depend on position and age. An additional empty slot with logit 0 lets an irrelevant
    sequence contribute nothing. The log-sum-exp of the logits is returned as well. It measures the amount of relevant
    history, which the softmax hides (DIN drops the softmax for this reason). Deviation from DIN: dot products replace a
    small network per pair, so that the projection is computed once per distinct item.

    Args:
        width: width of an item's representation.
        dimension: width of the projected interactions.
        heads: number of heads; each head has its own query vector of the target.
        length: largest length of a sequence.
    """

    def __init__(self, width: int, dimension: int, heads: int, length: int) -> None:
        super().__init__()
        self.heads, self.dimension = heads, dimension
        self.query = nn.Linear(width, heads * dimension, bias=False)
        self.value = nn.Linear(width, dimension, bias=False)
        self.place_bias = nn.Parameter(torch.zeros(heads, length))
        self.age_slope = nn.Parameter(torch.zeros(heads, 1))
        self.out_width = heads * dimension + dimension + heads

    def forward(
        self, items: torch.Tensor, item: torch.Tensor, sequence: torch.Tensor, age: torch.Tensor | None
    ) -> torch.Tensor:
        """Pool each sequence by attention.

        Args:
            items: (U, width) representations of distinct items; row 0 is padding.
            item, sequence: indices (B,) of the target items and (R, L) of the sequences in ``items``. Each of the R
                requests has B / R adjacent candidates.
            age: (R, L) logarithms of the ages of interactions, or None.

        Returns:
            (B, heads * dimension + dimension + heads): the pooled values of each head, their mean over the heads times
            the projected target, and the log-sum-exp of each head.
        """
        requests, length = sequence.shape
        rows = item.shape[0]
        projected = self.value(items)
        values = look_up(projected, sequence)
        query = self.query(look_up(items, item)).view(requests, -1, self.dimension)
        logits = torch.bmm(query, values.transpose(1, 2)) / math.sqrt(self.dimension)
        logits = logits.view(requests, -1, self.heads, length) + self.place_bias[:, :length]
        if age is not None:
            logits = logits + self.age_slope * age.view(requests, 1, 1, length)
        logits = logits.masked_fill((sequence == 0).view(requests, 1, 1, length), -1e9)
        highest = logits.detach().amax(dim=3, keepdim=True).clamp_min(0)
        weights = torch.exp(logits - highest)
        total = weights.sum(dim=3, keepdim=True) + torch.exp(-highest)
        pooled = torch.bmm((weights / total).view(requests, -1, length), values).view(rows, self.heads, self.dimension)
        target = look_up(projected, item)
        amount = (torch.log(total) + highest).view(rows, self.heads)
        return torch.cat([pooled.flatten(1), pooled.mean(dim=1) * target, amount], dim=1)
