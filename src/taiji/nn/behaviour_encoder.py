"""Bidirectional transformer over a history's items and behaviours, with rotary positions (FatsMB). The behaviours scale
queries and keys."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from taiji.nn.rotary import Turn, turned, turns

Reads = Literal["rotary", "added", "none"]
"""Ways to use behaviours: as factors of queries and keys (``rotary``), as vectors added to the item vectors
(``added``), or not at all (``none``)."""


class BehaviourAttention(nn.Module):
    """Attention whose queries and keys are multiplied elementwise by 1 + W e, where e is the behaviour's vector.

    The factors are applied before the rotation. Therefore, positions affect the product of a query and a key only
    through the distance between the two. The released code applies them after the rotation. The product then depends on
    absolute positions even if all behaviours are equal, because the two coordinates of a rotated pair have different
    factors.

    Args:
        width: width d.
        heads: number of heads, each of even width.
        scaled: True to scale queries and keys by behaviours.
        after_turn: True to apply the factors after the rotation, as in the released code.
    """

    def __init__(self, width: int, heads: int, scaled: bool, after_turn: bool) -> None:
        super().__init__()
        self.heads, self.after_turn = heads, after_turn
        self.projection, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.factors = nn.Linear(width, width, bias=False) if scaled else None

    def forward(self, x: torch.Tensor, behaviours: torch.Tensor, turn: Turn, known: torch.Tensor) -> torch.Tensor:
        """Return the attention output (B, L, d).

        Args:
            x: (B, L, d) inputs.
            behaviours: (B, L, d) vectors of the behaviours.
            turn: rotations of the positions, (L, d / heads).
            known: (B, L) bool, False at padding.
        """
        rows, length, width = x.shape
        query, key, value = (self._by_head(part) for part in self.projection(x).chunk(3, dim=-1))
        query, key = self._turned(query, behaviours, turn), self._turned(key, behaviours, turn)
        pooled = functional.scaled_dot_product_attention(query, key, value, attn_mask=known[:, None, None, :])
        return self.out(pooled.transpose(1, 2).reshape(rows, length, width))  # type: ignore[no-any-return]

    def _by_head(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def _turned(self, x: torch.Tensor, behaviours: torch.Tensor, turn: Turn) -> torch.Tensor:
        if self.factors is None:
            return turned(x, turn)
        factor = 1 + self._by_head(self.factors(behaviours))
        return turned(x, turn) * factor if self.after_turn else turned(x * factor, turn)


class BehaviourBlock(nn.Module):
    """Attention and feed-forward layers, each with a residual connection and followed by a norm.

    Args:
        width: width d.
        heads, scaled, after_turn: as in :class:`BehaviourAttention`.
        dropout: dropout rate of both branches.
    """

    def __init__(self, width: int, heads: int, dropout: float, scaled: bool, after_turn: bool) -> None:
        super().__init__()
        self.dropout = dropout
        self.attention = BehaviourAttention(width, heads, scaled, after_turn)
        self.first, self.second = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.attention_norm, self.forward_norm = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: torch.Tensor, behaviours: torch.Tensor, turn: Turn, known: torch.Tensor) -> torch.Tensor:
        """Return the updated x (B, L, d). The arguments are those of :meth:`BehaviourAttention.forward`."""
        pooled = self.attention(x, behaviours, turn, known)
        x = self.attention_norm(x + functional.dropout(pooled, self.dropout, self.training))
        hidden = self.second(functional.gelu(self.first(x)))
        return self.forward_norm(x + functional.dropout(hidden, self.dropout, self.training))  # type: ignore[no-any-return]


class BehaviourEncoder(nn.Module):
    """Transformer blocks over item vectors and behaviour ids.

    Args:
        behaviours: number of behaviours n, numbered from 1; 0 is padding, n + 1 is the mask.
        width, heads, dropout, after_turn: as in :class:`BehaviourBlock`.
        layers: number of blocks.
        reads: way in which the behaviours are used, one of :data:`Reads`.
    """

    def __init__(
        self, behaviours: int, width: int, heads: int, layers: int, dropout: float, reads: Reads, after_turn: bool
    ) -> None:
        super().__init__()
        self.head_width, self.reads, self.dropout = width // heads, reads, dropout
        self.behaviours = nn.Parameter(torch.randn(behaviours + 2, width) * (0.02 if reads == "added" else 1.0))
        self.blocks = nn.ModuleList(
            BehaviourBlock(width, heads, dropout, reads == "rotary", after_turn) for _ in range(layers)
        )
        for block in self.blocks:
            if isinstance(block, BehaviourBlock) and block.attention.factors is not None:
                nn.init.normal_(block.attention.factors.weight, std=width**-0.5)

    def forward(self, x: torch.Tensor, behaviours: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """Return the latent vectors at all positions.

        Args:
            x: (B, L, d) item vectors, newest first.
            behaviours: (B, L) int64 indices of behaviours.
            known: (B, L) bool, False at padding; each row needs at least one True.

        Returns:
            Latent vectors (B, L, d). The values at padding are meaningless.
        """
        vectors = functional.embedding(behaviours, self.behaviours)
        if self.reads == "added":
            x = x + vectors
        x = functional.dropout(x, self.dropout, self.training)
        turn = turns(torch.arange(x.shape[1], device=x.device), self.head_width, x)
        for block in self.blocks:
            x = block(x, vectors, turn, known)
        return x
