"""Expansion of one row per request to one row per candidate: R requests with B / R adjacent candidates each."""

from __future__ import annotations

import torch


def spread(values: torch.Tensor, rows: torch.Tensor, axis: int = 0) -> torch.Tensor:
    """Repeat the values of each request for each of its candidates.

    Args:
        values: (R, …); for an axis other than 0, (R, …, 1, …).
        rows: (B, …), any tensor with one row per candidate.
        axis: 0 gives (B, …); any other axis has size 1 and is expanded to B / R.
    """
    times = rows.shape[0] // values.shape[0]
    if axis:
        return values.expand(*(times if place == axis else -1 for place in range(values.dim())))
    wide = values.unsqueeze(1).expand(-1, times, *(-1 for _ in range(values.dim() - 1)))
    return wide.reshape(rows.shape[0], *values.shape[1:])


def add_spread_(candidates: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Add ``spread(values, candidates)`` to the candidates in place, see :func:`spread_add`."""
    candidates.unflatten(0, (values.shape[0], -1)).add_(values.unsqueeze(1))
    return candidates


def spread_add(values: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
    """Return ``spread(values, candidates) + candidates`` without a copy of ``values``; shapes (R, …) and (B, …) give
    (B, …)."""
    rest = candidates.shape[1:]
    return (candidates.view(values.shape[0], -1, *rest) + values.unsqueeze(1)).view(-1, *rest)
