"""Expansion of one row per request to one row per candidate, for R requests with B / R adjacent candidates each."""

from __future__ import annotations

import torch


def spread(values: torch.Tensor, rows: torch.Tensor, axis: int = 0) -> torch.Tensor:
    """Repeat the values of each request for each of its candidates.

    Args:
        values: (R, …) values of the requests; for an axis other than 0, this axis must have size 1.
        rows: (B, …) tensor with one row per candidate, of which only the number of rows is used.
        axis: 0 returns (B, …). Any other axis is expanded to size B / R.
    """
    times = rows.shape[0] // values.shape[0]
    if axis:
        return values.expand(*(times if place == axis else -1 for place in range(values.dim())))
    wide = values.unsqueeze(1).expand(-1, times, *(-1 for _ in range(values.dim() - 1)))
    return wide.reshape(rows.shape[0], *values.shape[1:])


def add_spread_(candidates: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Add ``spread(values, candidates)`` to the candidates (B, …) in place, and return them."""
    candidates.unflatten(0, (values.shape[0], -1)).add_(values.unsqueeze(1))
    return candidates


def spread_add(values: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
    """Return ``spread(values, candidates) + candidates`` (B, …) for values (R, …) and candidates (B, …), without
    copying ``values``."""
    rest = candidates.shape[1:]
    return (candidates.view(values.shape[0], -1, *rest) + values.unsqueeze(1)).view(-1, *rest)
