"""Attention of groups of tokens to a shared prefix and to each group's own earlier tokens. The prefix is not copied for
each group.

In shapes, each of R rows has a prefix of P tokens and G groups of T tokens, and there are h heads of width e.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True)
class Prefix:
    """Keys and values shared by the groups of a row.

    Attributes:
        keys, values: (R, h, P, e); after :meth:`gathered`, (R, h, G, P, e) with a copy per group.
        mask: (R, G, T, P) bool, True at the prefix entries to which a token may attend, at least one per token. G and T
            may be 1 to broadcast.
        recent: the part of ``mask`` that covers recent entries, of the same shape. It is read by blocks that choose
            between the whole and the recent history.
    """

    keys: torch.Tensor
    values: torch.Tensor
    mask: torch.Tensor
    recent: torch.Tensor | None = None

    def masked(self, mask: torch.Tensor) -> Prefix:
        """Return the prefix with a different mask."""
        return replace(self, mask=mask)

    def gathered(self) -> Prefix:
        """Return the prefix with only those entries to which each group may attend. They are copied for each group, and
        padded to the largest number of entries.

        Attention to the result equals masked attention to the whole prefix. It is faster if groups attend to only a
        small part of a long prefix. The mask must be the same for all tokens of a group (T = 1).
        """
        there = self.mask[:, :, 0]
        count = int(there.sum(dim=-1).max())
        index = torch.argsort(~there, dim=-1, stable=True)[..., :count]
        rows = torch.arange(len(index), device=index.device)[:, None, None]
        keys, values = (part.transpose(1, 2)[rows, index].movedim(3, 1) for part in (self.keys, self.values))
        masks = (None if mask is None else mask.gather(3, index[:, :, None]) for mask in (self.mask, self.recent))
        mask, recent = masks
        assert mask is not None
        return Prefix(keys, values, mask, recent)


Cache = tuple[torch.Tensor, torch.Tensor]
"""Keys and values (R, h, G, S, e) of the S own tokens of each group."""


def prefix_attention(query: torch.Tensor, prefix: Prefix | None, own: Cache | None) -> torch.Tensor:
    """Return the softmax attention of each group's tokens over the prefix and the group's own tokens together.

    The result equals attention in which the tokens of each group are preceded by a copy of the prefix.

    Args:
        query: (R, h, G, T, e) queries of the last T of each group's own tokens.
        prefix: shared prefix of the groups of a row, or None.
        own: keys and values of the group's S ≥ T own tokens, to which attention is causal, or None. ``prefix`` and
            ``own`` must not both be None.

    Returns:
        (R, h, G, T, e) attention outputs.
    """
    rows, heads, groups, count, width = query.shape
    query = query * width**-0.5
    logits = []
    if prefix is not None:
        asked = query if prefix.keys.ndim == 5 else query.reshape(rows, heads, groups * count, width)
        shared = (asked @ prefix.keys.transpose(-1, -2)).view(rows, heads, groups, count, -1)
        logits.append(shared.masked_fill(~prefix.mask[:, None], -torch.inf))
    if own is not None:
        mine = query @ own[0].transpose(-1, -2)
        if count > 1:
            length = own[0].shape[3]
            causal = torch.ones(count, length, dtype=torch.bool, device=query.device).tril(length - count)
            mine = mine.masked_fill(~causal, -torch.inf)
        logits.append(mine)
    weights = torch.softmax(torch.cat(logits, dim=-1), dim=-1)
    out: torch.Tensor | None = None
    seen = 0
    if prefix is not None:
        seen = prefix.keys.shape[-2]
        weight = weights[..., :seen]
        weight = weight if prefix.keys.ndim == 5 else weight.reshape(rows, heads, groups * count, seen)
        out = (weight @ prefix.values).view(rows, heads, groups, count, width)
    if own is not None:
        mine = weights[..., seen:] @ own[1]
        out = mine if out is None else out + mine
    assert out is not None
    return out
