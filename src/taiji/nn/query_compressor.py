"""Compression of a long sequence to a few tokens by learnt queries (OneMall's query former)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class QueryCompressor(nn.Module):
    """Module whose learnt queries read a sequence by cross-attention. The number of output tokens does not depend on
    the length of the sequence.

    The sequence is treated as a set: its order matters only if it is encoded in the vectors. A learnt null entry is
    always included, so that an empty sequence has an output.

    Args:
        width: width d of the vectors.
        heads: number of attention heads.
        queries: number of output tokens.
    """

    def __init__(self, width: int, heads: int, queries: int) -> None:
        super().__init__()
        self.heads = heads
        self.queries, self.null = nn.Parameter(torch.randn(queries, width) * 0.02), nn.Parameter(torch.zeros(width))
        self.norm = nn.LayerNorm(width)
        self.query, self.projection, self.out = (
            nn.Linear(width, width),
            nn.Linear(width, 2 * width),
            nn.Linear(width, width),
        )

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return output tokens (R, queries, d) for sequences x (R, P, d) and a mask (R, P) bool, True at valid
        entries."""
        rows = len(x)
        read = self.norm(torch.cat([self.null.expand(rows, 1, -1), x], dim=1))
        there = functional.pad(mask, (1, 0), value=True)[:, None, None]
        key, value = self.projection(read).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query = self.query(self.queries).unflatten(-1, (self.heads, -1)).transpose(0, 1).expand(rows, -1, -1, -1)
        pooled = functional.scaled_dot_product_attention(query, key, value, attn_mask=there)
        return self.queries + self.out(pooled.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]
