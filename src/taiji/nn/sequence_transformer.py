"""Causal transformer over item sequences, optionally packed in rows."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    """Pre-norm block of attention and feed-forward.

    Args:
        width: d.
        heads: number of heads of the attention.
        hidden: width between the two feed-forward layers.
        dropout: dropout rate of both branches.
    """

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.attention_norm, self.forward_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.projection, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.first, self.second = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Return (R, L, d) for x (R, L, d) and an attention mask (R, 1, L, L) bool; None attends to everything."""
        rows, length, width = x.shape
        query, key, value = (
            part.view(rows, length, self.heads, -1).transpose(1, 2)
            for part in self.projection(self.attention_norm(x)).chunk(3, dim=-1)
        )
        pooled = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        pooled = self.out(pooled.transpose(1, 2).reshape(rows, length, width))
        x = x + functional.dropout(pooled, self.dropout, self.training)
        hidden = functional.gelu(self.first(self.forward_norm(x)))
        return x + functional.dropout(self.second(hidden), self.dropout, self.training)


class SequenceTransformer(nn.Module):
    """Transformer blocks between learnt position embeddings and a final norm.

    Args:
        width: d.
        heads, layers, dropout: settings of the blocks.
        length: longest sequence.
        expansion: ratio of the hidden width to d.
    """

    def __init__(self, width: int, heads: int, layers: int, length: int, dropout: float, expansion: int = 2) -> None:
        super().__init__()
        self.dropout = dropout
        self.position = nn.Parameter(torch.randn(length, width) * 0.02)
        self.blocks = nn.ModuleList(Block(width, heads, expansion * width, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor, place: torch.Tensor, segment: torch.Tensor) -> torch.Tensor:
        """Return the states at all positions.

        Args:
            x: (R, L, d) item embeddings.
            place: (R, L) int64, number of newer entries in the same sequence (0 for the newest).
            segment: (R, L) int64, equal within a sequence, oldest entry first; 0 for padding.

        Returns:
            (R, L, d); a state depends only on entries of its own sequence that are not newer.
        """
        x = functional.dropout(x + self.position[place], self.dropout, self.training)
        mask = packed_causal_mask(segment)
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x)  # type: ignore[no-any-return]


def packed_causal_mask(segment: torch.Tensor) -> torch.Tensor:
    """Return the attention mask (R, 1, L, L) bool for segments (R, L): each position attends to its sequence up to
    itself.

    Padding attends to padding, so that each row of the attention has at least one entry.
    """
    length = segment.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=segment.device).tril()
    return ((segment[:, :, None] == segment[:, None, :]) & causal).unsqueeze(1)
