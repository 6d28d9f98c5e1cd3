"""Transformer block in which groups of tokens share a prefix. It serves decoder-only models and, with cross-attention,
encoder-decoder models.

In shapes, each of R rows has a prefix of P tokens and G groups of T tokens, and there are h heads of width e.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from taiji.nn.experts import Experts
from taiji.nn.rotary import Turn, turned
from taiji.nn.shared_prefix import Cache, Prefix, prefix_attention


@dataclass(frozen=True)
class BlockOptions:
    """Options of a block in addition to attention and feed-forward. The defaults give the plain pre-norm block.

    Attributes:
        query_key_norm: apply an RMS norm with learnt gains g_q and g_k to queries and keys of width e, so that
            ``|logit| ≤ √e · max|g_q| · max|g_k|``.
        gate: multiply the attention output by 2 σ(x W + b) of the normed input x. W and b start at 0, so the gate is
            initially the identity.
        router: let a router choose, per token, between attention to the whole prefix and attention to its recent part.
        experts: number of experts that replace the feed-forward layer; 0 for none.
        chosen: number of experts per token.
        balance: step size of the bias that balances the experts' load.
    """

    query_key_norm: bool = False
    gate: bool = False
    router: bool = False
    experts: int = 0
    chosen: int = 2
    balance: float = 1e-3


class PrefixBlock(nn.Module):
    """Pre-norm block in which the tokens of a group attend to the shared prefix and to their own past.

    Without cross-attention, the prefix and the group's own tokens share one softmax and the same projections, as if
    they were one sequence of a decoder-only model. With cross-attention, the prefix is the output of an encoder and has
    separate projections.

    Args:
        width: model width d.
        heads: number of attention heads h.
        hidden: width of the feed-forward layer.
        dropout: dropout rate of all branches.
        cross: True if the prefix is read by separate cross-attention.
        options: further options of the block.
    """

    def __init__(self, width: int, heads: int, hidden: int, dropout: float, cross: bool, options: BlockOptions) -> None:
        super().__init__()
        self.heads, self.dropout, self.cross = heads, dropout, cross
        self.attention_norm, self.forward_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.projection, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        if cross:
            self.cross_norm = nn.LayerNorm(width)
            self.cross_query, self.cross_projection = nn.Linear(width, width), nn.Linear(width, 2 * width)
            self.cross_out = nn.Linear(width, width)
        if options.experts:
            self.forward_layer: nn.Module = Experts(width, hidden, options.experts, options.chosen, options.balance)
        else:
            self.forward_layer = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        norms = (2 if cross else 1) if options.query_key_norm else 0
        self.query_norms = nn.ModuleList(nn.RMSNorm(width // heads) for _ in range(norms))
        self.key_norms = nn.ModuleList(nn.RMSNorm(width // heads) for _ in range(norms))
        self.gate = _zero(nn.Linear(width, width)) if options.gate else None
        self.router = _zero(nn.Linear(width, 2)) if options.router else None

    def encode(self, x: torch.Tensor, turn: Turn) -> tuple[torch.Tensor, Cache]:
        """Return the block's output (R, P, d) for a causal sequence, and its keys and values (R, h, P, e).

        Args:
            x: (R, P, d) tokens of the sequence.
            turn: (P, e) rotations of the positions.
        """
        read = self.attention_norm(x)
        query, key, value = self._heads(self.projection(read), 3)
        query, key = self._placed(query, key, 0, turn)
        pooled = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self._dropped(self.out(self._gated(_joined(pooled), read)))
        return x + self._dropped(self.forward_layer(self.forward_norm(x))), (key, value)

    def shared(self, memory: torch.Tensor, turn: Turn) -> Cache:
        """Return the cross-attention's keys and values (R, h, P, e) for encoder states (R, P, d) and rotations (P,
        e)."""
        key, value = self._heads(self.cross_projection(memory), 2)
        return turned(self.key_norms[1](key) if self.key_norms else key, turn), value

    def forward(self, x: torch.Tensor, turn: Turn, prefix: Prefix, past: Cache | None) -> tuple[torch.Tensor, Cache]:
        """Return the states (R, G, T, d) of new tokens, and the groups' own keys and values, including the new tokens.

        Args:
            x: (R, G, T, d) new tokens.
            turn: (R, 1, G, T, e) rotations of the new tokens' positions; G may be 1.
            prefix: shared prefix.
            past: the groups' own keys and values of earlier tokens, or None.
        """
        read = self.attention_norm(x)
        query, key, value = self._heads(self.projection(read), 3)
        query, key = self._placed(query, key, 0, turn)
        if past is not None:
            key, value = torch.cat([past[0], key], dim=3), torch.cat([past[1], value], dim=3)
        own = key, value
        if self.cross:
            pooled = prefix_attention(query, None, own)
        else:
            pooled = self._read(query, prefix, own, read)
        x = x + self._dropped(self.out(self._gated(_joined(pooled), read)))
        if self.cross:
            read = self.cross_norm(x)
            (query,) = self._heads(self.cross_query(read), 1)
            query = turned(self.query_norms[1](query) if self.query_norms else query, turn)
            x = x + self._dropped(self.cross_out(_joined(self._read(query, prefix, None, read))))
        return x + self._dropped(self.forward_layer(self.forward_norm(x))), own

    def _read(self, query: torch.Tensor, prefix: Prefix, own: Cache | None, read: torch.Tensor) -> torch.Tensor:
        """Return the attention output over the prefix and, unless ``own`` is None, the own tokens. With a router, the
        attention covers either the whole prefix or its recent part; the choice has a straight-through gradient."""
        everything = prefix_attention(query, prefix, own)
        if self.router is None or prefix.recent is None:
            return everything
        recent = prefix_attention(query, prefix.masked(prefix.recent), own)
        soft = torch.softmax(self.router(read), dim=-1)
        hard = functional.one_hot(soft.argmax(dim=-1), 2).to(soft.dtype)
        choice = (hard + soft - soft.detach())[:, None]
        return everything * choice[..., :1] + recent * choice[..., 1:]

    def _heads(self, x: torch.Tensor, parts: int) -> tuple[torch.Tensor, ...]:
        """Split x (R, …, parts * d) into parts (R, h, …, e)."""
        split = x.unflatten(-1, (parts, self.heads, -1))
        return tuple(split.select(-3, part).movedim(-2, 1) for part in range(parts))

    def _placed(self, query: torch.Tensor, key: torch.Tensor, at: int, turn: Turn) -> tuple[torch.Tensor, torch.Tensor]:
        if self.query_norms:
            query, key = self.query_norms[at](query), self.key_norms[at](key)
        return turned(query, turn), turned(key, turn)

    def _gated(self, pooled: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
        return pooled if self.gate is None else pooled * (2 * torch.sigmoid(self.gate(read)))

    def _dropped(self, x: torch.Tensor) -> torch.Tensor:
        return functional.dropout(x, self.dropout, self.training)


def _joined(x: torch.Tensor) -> torch.Tensor:
    """Join heads (R, h, …, e) to (R, …, d)."""
    return x.movedim(1, -2).flatten(-2)


def _zero(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
