"""Causal transformer over item sequences, several of which may be packed into one row."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    """Pre-norm transformer block of attention and feed-forward layers.

    Args:
        width: width d of the vectors.
        heads: number of attention heads.
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
        """Return the updated x (R, L, d), given an attention mask (R, 1, L, L) bool. Without a mask, all positions
        attend to each other."""
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
        width: width d of the vectors.
        heads, layers, dropout: settings of the blocks.
        length: largest length of a sequence.
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
            place: (R, L) int64 positions: the number of newer entries in the same sequence, 0 for the newest.
            segment: (R, L) int64 number of the entry's sequence in the row, 0 for padding. The entries of a sequence
                are adjacent, oldest first.

        Returns:
            States (R, L, d). A state depends only on its own entry and the older entries of the same sequence.
        """
        x = functional.dropout(x + self.position[place], self.dropout, self.training)
        mask = packed_causal_mask(segment)
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x)  # type: ignore[no-any-return]


def packed_causal_mask(segment: torch.Tensor) -> torch.Tensor:
    """Return the attention mask (R, 1, L, L) bool for segments (R, L). Each position attends to itself and to the
    earlier positions of its sequence.

    Padding attends to padding, so that every position attends to at least one position.
    """
    length = segment.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=segment.device).tril()
    return ((segment[:, :, None] == segment[:, None, :]) & causal).unsqueeze(1)
