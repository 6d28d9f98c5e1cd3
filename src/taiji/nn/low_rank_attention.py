"""Attention of candidates over long histories, by three operators: the full softmax, and two that use a low-rank
approximation of the history.

H is the history (N, d), whose rows are keys and values, and U Σ Vᵀ is its best rank-r approximation. The rows of Q (m,
d) are the queries of m candidates. The operators are:

- ``full_softmax``: softmax(Q Hᵀ / √d) H, in time O(m N d).
- ``factored_softmax``: softmax(Q V (H V)ᵀ / √d) (H V) Vᵀ, in time O(N d r + m N r). It equals the full softmax if H has
  rank r. Otherwise, the error of a logit of query q is at most ‖q‖ σ_{r+1} / √d, with the (r + 1)-th largest singular
  value σ_{r+1} of H.
- ``interest_softmax``: softmax over r *interests* K = Σ Vᵀ / √N, in time O(N d r + m d r). This is a different
  function. It does not equal a softmax over the interactions, even if the history has rank r.

All three operators ignore the order of the interactions.

A singular vector is determined only up to its sign, but the sign matters for the interests. Therefore, the sign is
chosen such that the mean interaction has a positive coordinate along the vector. Because singular values grow with √N,
they are divided by √N. Gradients flow through H V but not through V, because the gradient of a decomposition explodes
where singular values are close.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

Operator = Literal["full_softmax", "factored_softmax", "interest_softmax"]
OVERSAMPLED, ROUNDS, SEED = 8, 3, 11
"""Constants of the randomised decomposition: number of additional directions, number of power iterations, and seed of
the initial directions."""


def first_directions(width: int, rank: int) -> torch.Tensor:
    """Return the fixed initial directions (d, r + oversampling) of :func:`principal_directions`."""
    count = min(width, rank + OVERSAMPLED)
    return torch.randn(width, count, generator=torch.Generator().manual_seed(SEED))


def principal_directions(history: torch.Tensor, start: torch.Tensor, rank: int) -> torch.Tensor:
    """Return the right singular vectors (B, d, r) of the r largest singular values, without a gradient.

    They are computed by randomised subspace iteration (Halko, Martinsson and Tropp 2011, algorithm 4.4), in O(N d r)
    per round. If ``start`` has d directions, they are instead computed exactly, by one eigendecomposition.

    Args:
        history: (B, N, d) interactions, 0 at padding.
        start: (d, ·) initial directions from :func:`first_directions`.
        rank: number r of directions.
    """
    known = history.detach()
    basis = start.to(known).expand(known.shape[0], *start.shape)
    if start.shape[1] == start.shape[0]:
        return torch.linalg.eigh(known.transpose(1, 2) @ known)[1].flip(2)[:, :, :rank]
    for _ in range(ROUNDS):
        basis = torch.linalg.qr(known.transpose(1, 2) @ (known @ basis))[0]
    reduced = known @ basis
    found = torch.linalg.eigh(reduced.transpose(1, 2) @ reduced)[1]
    return basis @ found.flip(2)[:, :, :rank]


def interests(history: torch.Tensor, mask: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
    """Return the interests Σ Vᵀ / √N (B, r, d).

    Args:
        history: (B, N, d) interactions, 0 at padding.
        mask: (B, N) True where there is an interaction.
        directions: (B, d, r) singular vectors.
    """
    count = mask.sum(dim=1).clamp_min(1).to(history.dtype).view(-1, 1, 1)
    projected = history @ directions
    strength = (projected.square().sum(dim=1, keepdim=True) / count + 1e-24).sqrt()
    side = projected.detach().sum(dim=1, keepdim=True)
    sign = torch.where(side < 0, -torch.ones_like(side), torch.ones_like(side))
    return (strength * sign * directions).transpose(1, 2)


def low_rank_attention(
    queries: torch.Tensor,
    history: torch.Tensor,
    mask: torch.Tensor,
    operator: Operator,
    directions: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the attention output (B, m, d) of each candidate over the history; 0 for an empty history.

    Args:
        queries: (B, m, d) queries of the candidates.
        history: (B, N, d) keys and values, 0 at padding.
        mask: (B, N) True where there is an interaction.
        operator: ``full_softmax``, ``factored_softmax`` or ``interest_softmax``.
        directions: (B, d, r) singular vectors, needed by all operators except ``full_softmax``.
    """
    scale = queries.shape[2] ** -0.5
    if operator == "full_softmax":
        return _masked_softmax(scale * (queries @ history.transpose(1, 2)), mask) @ history
    assert directions is not None
    if operator == "factored_softmax":
        projected = history @ directions
        weights = _masked_softmax(scale * ((queries @ directions) @ projected.transpose(1, 2)), mask)
        return (weights @ projected) @ directions.transpose(1, 2)
    compact = interests(history, mask, directions)
    return torch.softmax(scale * (queries @ compact.transpose(1, 2)), dim=2) @ compact


def _masked_softmax(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the softmax over the interactions only. For an empty history, the weights are uniform over the padding,
    whose values are 0."""
    return torch.softmax(logits.masked_fill(~mask.unsqueeze(1), -1e9), dim=2)


class LowRankAttention(nn.Module):
    """Layer that applies one of the operators to batches of histories.

    Args:
        width: width of interactions and candidates (d).
        rank: rank r, at most the width.
        operator: ``full_softmax``, ``factored_softmax`` or ``interest_softmax``.
    """

    start: torch.Tensor

    def __init__(self, width: int, rank: int, operator: Operator) -> None:
        super().__init__()
        self.rank, self.operator = min(rank, width), operator
        self.register_buffer("start", first_directions(width, self.rank), persistent=False)

    def forward(self, queries: torch.Tensor, history: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the output of :func:`low_rank_attention` (B, m, d)."""
        directions = None
        if self.operator != "full_softmax":
            directions = principal_directions(history, self.start, self.rank)
        return low_rank_attention(queries, history, mask, self.operator, directions)
