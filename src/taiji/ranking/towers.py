"""How click and conversion share their hidden layers."""

from __future__ import annotations

import torch
from torch import nn

from taiji.ranking.settings import RankerSettings


class Dropout(nn.Module):
    """Dropout whose mask takes a byte a weight from 64-bit draws: a fifth of the time of one draw a weight.

    The probability is rounded to a 256th, and the scale fits the rounded one.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.dropped = round(256 * probability)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Values of any shape, each 0 with the probability or scaled up, while training; else unchanged."""
        if not self.training or not self.dropped:
            return values
        draws = torch.empty((values.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), None).view(torch.uint8)
        mask = (draws[: values.numel()].view(values.shape) >= self.dropped).to(values.dtype)
        return values * mask.mul_(256 / (256 - self.dropped))


def layers(width: int, hidden: tuple[int, ...], dropout: float) -> nn.Sequential:
    """Linear, ReLU, dropout, for each hidden width."""
    modules: list[nn.Module] = []
    for size in hidden:
        modules += [nn.Linear(width, size), nn.ReLU(), Dropout(dropout)]
        width = size
    return nn.Sequential(*modules)


class SharedBottom(nn.Module):
    """One bottom, a linear head a task (Caruana 1997)."""

    def __init__(self, width: int, settings: RankerSettings) -> None:
        super().__init__()
        self.bottom = layers(width, settings.hidden, settings.dropout)
        self.heads = nn.Linear(settings.hidden[-1], 2)

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, width) to two (B,) logits."""
        logits = self.heads(self.bottom(inputs))
        return logits[:, 0], logits[:, 1]


class MixtureOfExperts(nn.Module):
    """Experts mixed by a softmax gate a task (MMoE, Ma et al. 2018, eq. 5–7)."""

    def __init__(self, width: int, settings: RankerSettings) -> None:
        super().__init__()
        self.experts = nn.ModuleList(layers(width, settings.hidden, settings.dropout) for _ in range(settings.experts))
        self.gates = nn.Linear(width, 2 * settings.experts)
        self.heads = nn.ModuleList(nn.Linear(settings.hidden[-1], 1) for _ in range(2))

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, width) to two (B,) logits."""
        outputs = torch.stack([expert(inputs) for expert in self.experts], dim=1)
        gates = torch.softmax(self.gates(inputs).view(-1, 2, len(self.experts)), dim=2)
        mixed = torch.bmm(gates, outputs)
        click, conversion = (head(mixed[:, task]).squeeze(1) for task, head in enumerate(self.heads))
        return click, conversion


def tower(width: int, settings: RankerSettings) -> nn.Module:
    """The tower the settings name."""
    return SharedBottom(width, settings) if settings.tower == "shared" else MixtureOfExperts(width, settings)
