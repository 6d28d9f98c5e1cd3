"""Search of a history by item codes, and attention to the entries found (QARM V2, arXiv 2602.08559; SIM, arXiv
2006.05639)."""

from __future__ import annotations

import math

import torch


def shared_levels(candidates: torch.Tensor, history: torch.Tensor, least: int = 1) -> torch.Tensor:
    """Return the number of leading code levels that each candidate shares with each history entry, (R, C, N) int64.

    Args:
        candidates: (R, C, L) codes.
        history: (R, N, L) codes.
        least: smallest valid code; smaller values match nothing.
    """
    mine = candidates.unsqueeze(2)
    same = (mine == history.unsqueeze(1)) & (mine >= least)
    return same.long().cumprod(dim=3).sum(dim=3)


def search(shared: torch.Tensor, there: torch.Tensor, found: int, least: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the history entries that share the most levels with each candidate, newest first among ties.

    Args:
        shared: (R, C, N) levels shared with each entry, newest first.
        there: (R, N) bool, False for padding.
        found: k ≤ N, number of entries to find.
        least: fewest levels that an entry must share.

    Returns:
        positions in the history (R, C, k), and a mask (R, C, k) that is False where too few entries share enough
        levels.
    """
    place = torch.ones_like(shared).cumsum(dim=2)
    key = (shared + 1) * (shared.shape[2] + 1) - place
    best = torch.topk(torch.where((shared >= least) & there.unsqueeze(1), key, 0), found, dim=2)
    return best[1], best[0] > 0


def attend_found(
    query: torch.Tensor, history: torch.Tensor, positions: torch.Tensor, there: torch.Tensor
) -> torch.Tensor:
    """Return softmax(q·h / √d) h over the entries found for each candidate, (R, C, d); 0 where nothing was found.

    The result equals :func:`attend_masked` with all other entries masked, but the cost grows with the number of entries
    found, not with the history.

    Args:
        query: (R, C, d).
        history: (R, N, d).
        positions: (R, C, K).
        there: (R, C, K) bool.
    """
    width, found = history.shape[2], positions.shape[2]
    flat = positions.reshape(positions.shape[0], -1, 1).expand(-1, -1, width)
    entries = history.gather(1, flat).view(history.shape[0], -1, found, width)
    scores = (entries * query.unsqueeze(2)).sum(dim=3) / math.sqrt(width)
    return (_weights(scores, there).unsqueeze(3) * entries).sum(dim=2)


def attend_masked(query: torch.Tensor, history: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
    """Return softmax(q·h / √d) h over the entries with ``there`` True (R, C, N), for query (R, C, d) and history (R, N,
    d)."""
    scores = query @ history.transpose(1, 2) / math.sqrt(history.shape[2])
    return _weights(scores, there) @ history


def _weights(scores: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
    """Return a softmax over the last axis masked by ``there``; all zeros if everything is masked."""
    return torch.softmax(torch.where(there, scores, -1e30), dim=-1) * there.to(scores.dtype)
