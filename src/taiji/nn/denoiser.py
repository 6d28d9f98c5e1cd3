"""Network that predicts the clean value of a diffusion from a noisy value, the diffusion step and a condition."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn
from torch.nn import functional


class ModulatedBlock(nn.Module):
    """Residual feed-forward block whose norm and gain depend on the diffusion step (adaLN-Zero, Peebles & Xie 2023).

    The block computes ``x + α · MLP([LN(x) (1 + γ) + β ; condition])``. α, β and γ are linear in SiLU(embedding of the
    step) and initially 0, so an untrained block is the identity.

    Args:
        width: width of x and of the step's embedding.
        condition: width of the condition.
    """

    def __init__(self, width: int, condition: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(width, 3 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        self.first, self.second = nn.Linear(width + condition, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor, condition: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        """Return the updated x (B, width), for conditions (B, c) and step embeddings (B, width)."""
        strength, shift, scale = self.modulation(functional.silu(step)).chunk(3, dim=-1)
        inner = torch.cat([self.norm(x) * (1 + scale) + shift, condition], dim=-1)
        return x + strength * self.second(functional.gelu(self.first(inner)))  # type: ignore[no-any-return]


class Denoiser(nn.Module):
    """Denoiser that consists of modulated blocks between two linear layers.

    Args:
        width: width d of the values.
        condition: width of the condition.
        hidden: width of the blocks.
        blocks: number of blocks.
        steps: number S of diffusion steps.
    """

    def __init__(self, width: int, condition: int, hidden: int, blocks: int, steps: int) -> None:
        super().__init__()
        self.steps = nn.Embedding(steps + 1, hidden)
        self.first, self.last = nn.Linear(width + condition, hidden), nn.Linear(hidden, width)
        self.blocks = nn.ModuleList(ModulatedBlock(hidden, condition) for _ in range(blocks))

    def forward(self, noisy: torch.Tensor, step: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """Return predictions (B, d) of the clean values from noisy values (B, d), steps (B,) and conditions (B, c)."""
        x, at = self.first(torch.cat([noisy, condition], dim=-1)), self.steps(step)
        for block in self.blocks:
            x = block(x, condition, at)
        return cast(torch.Tensor, self.last(x))
