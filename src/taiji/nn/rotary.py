"""Rotary positions: queries and keys are rotated by their positions, so that the product of a query and a key depends
on the distance between them (Su et al., arXiv 2104.09864)."""

from __future__ import annotations

import torch

BASE = 10_000.0
Turn = tuple[torch.Tensor, torch.Tensor]
"""Rotation: cosines (…, e) and sines (…, e) of the angles."""


def turns(places: torch.Tensor, width: int, like: torch.Tensor) -> Turn:
    """Return the rotations (…, e) of positions (…) for heads of even width e, in the dtype of ``like``."""
    rates = BASE ** (-torch.arange(0, width, 2, device=places.device, dtype=torch.float64) / width)
    angles = (places[..., None] * rates).repeat(*[1] * places.ndim, 2)
    return angles.cos().to(like.dtype), angles.sin().to(like.dtype)


def turned(x: torch.Tensor, turn: Turn) -> torch.Tensor:
    """Return x (…, e) rotated: coordinates i and i + e/2 are rotated as a pair, which leaves the length of x
    unchanged."""
    first, second = x.chunk(2, dim=-1)
    return x * turn[0] + torch.cat([-second, first], dim=-1) * turn[1]
