"""Denoiser of the diffusion from behaviour-agnostic to behaviour-specific latents (FatsMB), with modulated blocks and
with experts per behaviour."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class BehaviourExperts(nn.Module):
    """Linear experts, some of them shared by all behaviours and some specific to one behaviour. Their outputs are
    weighted by the behaviour's own gate.

    Args:
        width: width d.
        behaviours: number of behaviours n, numbered from 1; 0 stands for no behaviour, for which only the shared
            experts are used.
        shared: number of shared experts, at least 1.
        own: number of experts per behaviour.
    """

    def __init__(self, width: int, behaviours: int, shared: int, own: int) -> None:
        super().__init__()
        self.own_experts = own
        self.shared = nn.Parameter(torch.randn(shared, width, width) * width**-0.5)
        self.shared_bias = nn.Parameter(torch.zeros(shared, width))
        self.own = nn.Parameter(torch.randn(behaviours, own, width, width) * width**-0.5)
        self.own_bias = nn.Parameter(torch.zeros(behaviours, own, width))
        self.gates = nn.Parameter(torch.randn(behaviours + 1, width, shared + own) * width**-0.5)

    def forward(self, x: torch.Tensor, behaviour: torch.Tensor) -> torch.Tensor:
        """Return the weighted sum of the experts' outputs (B, d), for x (B, d) and behaviours (B,) int64."""
        row = torch.arange(len(x), device=x.device)
        logits = torch.einsum("bd,nde->bne", x, self.gates)[row, behaviour]
        answers = torch.einsum("bd,sde->bse", x, self.shared) + self.shared_bias
        if self.own_experts:
            chosen = (behaviour - 1).clamp_min(0)
            own = torch.einsum("bd,npde->bnpe", x, self.own)[row, chosen] + self.own_bias[chosen]
            answers = torch.cat([answers, own], dim=1)
            place = torch.arange(logits.shape[1], device=x.device)
            foreign = (behaviour == 0)[:, None] & (place >= len(self.shared))
            logits = logits.masked_fill(foreign, -torch.inf)
        return (torch.softmax(logits, dim=1).unsqueeze(-1) * answers).sum(dim=1)


class TransferBlock(nn.Module):
    """Two residual layers whose norms and gains depend on the behaviour and the step (adaLN-Zero, Peebles & Xie 2023).

    The first layer is ``x + α₁ · MLP([LN(x) (1 + γ₁) + β₁ ; agnostic])``, the second ``x + α₂ · experts(LN(x) (1 + γ₂)
    + β₂)``. α, β and γ start at 0, so an untrained block is the identity.

    Args:
        width: width d of all inputs.
        behaviours, shared, own: as in :class:`BehaviourExperts`.
    """

    def __init__(self, width: int, behaviours: int, shared: int, own: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        self.first, self.second = nn.Linear(2 * width, 2 * width), nn.Linear(2 * width, width)
        self.experts = BehaviourExperts(width, behaviours, shared, own)

    def forward(
        self, x: torch.Tensor, setting: torch.Tensor, agnostic: torch.Tensor, behaviour: torch.Tensor
    ) -> torch.Tensor:
        """Return the updated x (B, d).

        Args:
            x: (B, d) latents.
            setting: (B, d) embedding of behaviour and step, on which the norms and gains depend.
            agnostic: (B, d) behaviour-agnostic latents.
            behaviour: (B,) int64 behaviours.
        """
        alpha1, beta1, gamma1, alpha2, beta2, gamma2 = self.modulation(functional.silu(setting)).chunk(6, dim=-1)
        inner = torch.cat([self.norm(x) * (1 + gamma1) + beta1, agnostic], dim=-1)
        x = x + alpha1 * self.second(functional.gelu(self.first(inner)))
        return x + alpha2 * self.experts(self.norm(x) * (1 + gamma2) + beta2, behaviour)  # type: ignore[no-any-return]


class BehaviourDenoiser(nn.Module):
    """Denoiser that maps a noisy behaviour-specific latent to the clean latent.

    Args:
        width: width d of the latents.
        behaviours: number of behaviours n; 0 stands for no behaviour, which guidance needs.
        blocks: number of blocks.
        steps: number of diffusion steps S.
        shared, own: as in :class:`BehaviourExperts`.
    """

    def __init__(self, width: int, behaviours: int, blocks: int, steps: int, shared: int, own: int) -> None:
        super().__init__()
        self.behaviours, self.steps = nn.Embedding(behaviours + 1, width), nn.Embedding(steps + 1, width)
        self.blocks = nn.ModuleList(TransferBlock(width, behaviours, shared, own) for _ in range(blocks))

    def forward(
        self, noisy: torch.Tensor, step: torch.Tensor, agnostic: torch.Tensor, behaviour: torch.Tensor
    ) -> torch.Tensor:
        """Return predictions (B, d) of clean latents from noisy latents (B, d), steps (B,), behaviour-agnostic latents
        (B, d) and behaviours (B,)."""
        setting, x = self.behaviours(behaviour) + self.steps(step), noisy
        for block in self.blocks:
            x = block(x, setting, agnostic, behaviour)
        return x
