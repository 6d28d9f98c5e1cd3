"""Search of a user's history by item codes, and attention to the entries found (QARM V2, arXiv 2602.08559; SIM, arXiv
2006.05639)."""

from __future__ import annotations

import math

import torch


def shared_levels(candidates: torch.Tensor, history: torch.Tensor, least: int = 1) -> torch.Tensor:
    """Return the number (R, C, N) int64 of leading code levels that each candidate shares with each history entry.

    Args:
        candidates: (R, C, L) codes of the candidates.
        history: (R, N, L) codes of the history entries.
        least: smallest valid code; a smaller value matches no code.
    """
    mine = candidates.unsqueeze(2)
    same = (mine == history.unsqueeze(1)) & (mine >= least)
    return same.long().cumprod(dim=3).sum(dim=3)


def search(shared: torch.Tensor, there: torch.Tensor, found: int, least: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the history entries that share the most levels with each candidate. Ties go to the newer entry.

    Args:
        shared: (R, C, N) number of levels shared with each entry, newest entry first.
        there: (R, N) bool, False for padding.
        found: number k ≤ N of entries to find.
        least: smallest number of shared levels with which an entry is found.

    Returns:
        Positions (R, C, k) of the entries in the history, and a mask (R, C, k), which is False at surplus positions if
        fewer than k entries share enough levels.
    """
    place = torch.ones_like(shared).cumsum(dim=2)
    key = (shared + 1) * (shared.shape[2] + 1) - place
    best = torch.topk(torch.where((shared >= least) & there.unsqueeze(1), key, 0), found, dim=2)
    return best[1], best[0] > 0


def attend_found(
    query: torch.Tensor, history: torch.Tensor, positions: torch.Tensor, there: torch.Tensor
) -> torch.Tensor:
    """Return softmax(q·h / √d) h (R, C, d) over the entries found for each candidate; zeros for a candidate without
    found entries.

    The result equals that of :func:`attend_masked` with all other entries masked. However, the cost grows with the
    number of found entries instead of the length of the history.

    Args:
        query: (R, C, d) vectors q of the candidates.
        history: (R, N, d) vectors h of the history entries.
        positions: (R, C, k) positions of the found entries.
        there: (R, C, k) bool, False where no entry was found.
    """
    width, found = history.shape[2], positions.shape[2]
    flat = positions.reshape(positions.shape[0], -1, 1).expand(-1, -1, width)
    entries = history.gather(1, flat).view(history.shape[0], -1, found, width)
    scores = (entries * query.unsqueeze(2)).sum(dim=3) / math.sqrt(width)
    return (_weights(scores, there).unsqueeze(3) * entries).sum(dim=2)


def attend_masked(query: torch.Tensor, history: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
    """Return softmax(q·h / √d) h (R, C, d) over the entries at which ``there`` (R, C, N) is True, for queries (R, C, d)
    and a history (R, N, d)."""
    scores = query @ history.transpose(1, 2) / math.sqrt(history.shape[2])
    return _weights(scores, there) @ history


def _weights(scores: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
    """Return the softmax over the last axis with entries masked where ``there`` is False; all zeros if everything is
    masked."""
    return torch.softmax(torch.where(there, scores, -1e30), dim=-1) * there.to(scores.dtype)
