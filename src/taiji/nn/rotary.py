"""Rotary positions: queries and keys are rotated by position, so that their product depends on the distance (Su et al.,
2104.09864)."""

from __future__ import annotations

import torch

BASE = 10_000.0
Turn = tuple[torch.Tensor, torch.Tensor]
"""Cosines and sines (…, e) of the angles."""


def turns(places: torch.Tensor, width: int, like: torch.Tensor) -> Turn:
    """Return the rotations (…, e) of positions (…) for heads of even width e, in the dtype of ``like``."""
    rates = BASE ** (-torch.arange(0, width, 2, device=places.device, dtype=torch.float64) / width)
    angles = (places[..., None] * rates).repeat(*[1] * places.ndim, 2)
    return angles.cos().to(like.dtype), angles.sin().to(like.dtype)


def turned(x: torch.Tensor, turn: Turn) -> torch.Tensor:
    """Return x (…, e) with coordinates i and i + e/2 rotated as a pair; the length of x is unchanged."""
    first, second = x.chunk(2, dim=-1)
    return x * turn[0] + torch.cat([-second, first], dim=-1) * turn[1]
