"""Batched beam search over a tree of codes. Scores and children come from callbacks, and there is no Python loop over
rows or beams."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Score = Callable[[int, torch.Tensor, torch.Tensor], torch.Tensor]
"""Function from level, parents (B, K) and codes (B, K) to log-probabilities (B, K, V) of each beam's next code.

For request b, beam k extends beam ``parents[b, k]`` of the previous call by the code ``codes[b, k]``. At level 0, K is
1, and parents and codes are zeros.
"""
Children = Callable[[int, Ints, Ints], tuple[Ints, Ints, Ints]]
"""Function from level, requests (R,) and nodes (R,) to the C children of these nodes: parents, codes and child nodes,
each (C,).

Parents are indices into the R nodes, in ascending order.
"""


def beam_search(
    score: Score, children: Children, requests: int, levels: int, beam: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the best leaves that the beam reaches. The score of a leaf is the sum of the log-probabilities along its
    path.

    A beam as wide as the widest level makes the search exhaustive. Ties go to the smaller index in the beam, then to
    the smaller code. A request with an empty tree gets only padding.

    Args:
        score: scoring callback, called once per level.
        children: callback that returns the children of nodes in each request's tree.
        requests: number of requests B.
        levels: number of levels L.
        beam: number of code prefixes kept per request.

    Returns:
        Leaves (B, K) int64, best first and padded with −1, and their scores (B, K), which are −inf at the padding. K is
        at most ``beam``.
    """
    nodes = torch.zeros(requests, 1, dtype=torch.int64)
    parents = codes = torch.zeros_like(nodes)
    total: torch.Tensor | None = None
    for level in range(levels):
        gains = score(level, parents, codes)
        device = gains.device
        row, place = (part.numpy() for part in torch.nonzero(nodes >= 0, as_tuple=True))
        entry, code, child = children(level, row, nodes.numpy()[row, place])
        owner, slot = row[entry], place[entry]
        counts = np.bincount(owner, minlength=requests)
        column = torch.from_numpy(np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts))
        at = torch.from_numpy(owner), torch.from_numpy(slot), torch.from_numpy(code)
        where = tuple(part.to(device) for part in at)
        value = gains[where] if total is None else gains[where] + total[where[:2]]
        width = int(counts.max(initial=0))
        table = value.new_full((requests, width), -torch.inf)
        table[where[0], column.to(device)] = value
        best = _best(table, min(beam, width))
        total = table.gather(1, best)
        chosen = best.cpu()
        alive = (total > -torch.inf).cpu()
        known = [torch.zeros(requests, width, dtype=torch.int64) for _ in range(3)]
        for matrix, values in zip(known, (at[1], at[2], torch.from_numpy(child))):
            matrix[at[0], column] = values
        parents, codes, nodes = (matrix.gather(1, chosen) for matrix in known)
        nodes = torch.where(alive, nodes, -1)
    assert total is not None
    return nodes, total


def _best(table: torch.Tensor, count: int) -> torch.Tensor:
    """Return the columns (B, count) of the largest values of each row, largest value first. Ties go to the smaller
    column."""
    if count == 0:
        return torch.zeros(len(table), 0, dtype=torch.int64, device=table.device)
    values, found = torch.topk(table, min(count + 1, table.shape[1]), dim=1)
    equal = (values[:, 1:] == values[:, :-1]) & (values[:, 1:] > -torch.inf)
    if bool(equal.any()):
        return torch.argsort(table, dim=1, descending=True, stable=True)[:, :count]
    return found[:, :count]
