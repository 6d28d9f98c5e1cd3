"""Attention of many groups of tokens to one shared prefix and to their own past, without a copy of the prefix per
group."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True)
class Prefix:
    """Keys and values shared by the groups of a row.

    Attributes:
        keys, values: (R, h, P, e); or (R, h, G, P, e), gathered per group by :meth:`gathered`.
        mask: (R, G, T, P) bool, entries that each token may attend to, at least one; G and T may be 1 to broadcast.
        recent: mask of the same shape, the recent part of ``mask``. Blocks that choose between long and short histories
            (:mod:`taiji.nn.prefix_blocks`) read it.
    """

    keys: torch.Tensor
    values: torch.Tensor
    mask: torch.Tensor
    recent: torch.Tensor | None = None

    def masked(self, mask: torch.Tensor) -> Prefix:
        """Return the prefix with another mask."""
        return replace(self, mask=mask)

    def gathered(self) -> Prefix:
        """Return the entries to which each group may attend, copied into one array per group and padded to the longest.

        Attention to the result equals masked attention to the whole prefix. It is faster if groups see only a small
        part of a long prefix. The mask must be the same for all tokens of a group (T = 1).
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
"""Own keys and values (R, h, G, S, e)."""


def prefix_attention(query: torch.Tensor, prefix: Prefix | None, own: Cache | None) -> torch.Tensor:
    """Return softmax attention over the prefix and the group's own tokens jointly.

    The result equals attention in which the tokens of each group are preceded by a copy of the prefix.

    Args:
        query: (R, h, G, T, e), the last T of the group's own tokens.
        prefix: shared prefix of the groups of a row, or None.
        own: keys and values of S ≥ T tokens, causal, or None; not both None.

    Returns:
        (R, h, G, T, e).
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
