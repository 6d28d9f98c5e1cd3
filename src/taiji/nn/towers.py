"""Towers of ranking networks: hidden layers that the tasks share, and linear heads."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from taiji.nn.lookup import on_cpu


class Dropout(nn.Module):
    """Dropout that needs only one random byte per value on a CPU. Drawing the bytes as 64-bit random numbers takes a
    fifth of the time of one draw per value.

    The probability is rounded to a multiple of 1/256, at most 255/256, and the scale matches the rounded value. Other
    devices use PyTorch's dropout.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.dropped = min(round(256 * probability), 255)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return the values, which may have any shape. In training, each value is either set to zero, with the given
        probability, or scaled up. Outside training, the values are unchanged."""
        if not self.training or not self.dropped:
            return values
        if not on_cpu(values):
            return functional.dropout(values, self.dropped / 256)
        draws = torch.empty((values.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), None).view(torch.uint8)
        mask = (draws[: values.numel()].view(values.shape) >= self.dropped).to(values.dtype)
        return values * mask.mul_(256 / (256 - self.dropped))


def layers(width: int, hidden: tuple[int, ...], dropout: float) -> nn.Sequential:
    """Return linear, ReLU and dropout layers for each hidden width."""
    modules: list[nn.Module] = []
    for size in hidden:
        modules += [nn.Linear(width, size), nn.ReLU(), Dropout(dropout)]
        width = size
    return nn.Sequential(*modules)


class SharedBottom(nn.Module):
    """Hidden layers shared by all tasks, and one linear head per task (Caruana 1997).

    Args:
        width: width of the input.
        outputs: total number of logits.
        hidden: widths of the hidden layers.
        dropout: dropout rate of each hidden layer.
    """

    def __init__(self, width: int, outputs: int, hidden: tuple[int, ...], dropout: float) -> None:
        super().__init__()
        self.bottom = layers(width, hidden, dropout)
        self.heads = nn.Linear(hidden[-1], outputs)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return logits (B, outputs) for inputs (B, width)."""
        return self.heads(self.bottom(inputs))  # type: ignore[no-any-return]


class MixtureOfExperts(nn.Module):
    """Experts mixed by one softmax gate per output (MMoE, Ma et al. 2018, eq. 5–7).

    Args:
        width: width of the input.
        outputs: total number of logits.
        hidden: widths of the hidden layers of each expert.
        dropout: dropout rate of each hidden layer.
        experts: number of experts.
    """

    def __init__(self, width: int, outputs: int, hidden: tuple[int, ...], dropout: float, experts: int) -> None:
        super().__init__()
        self.experts = nn.ModuleList(layers(width, hidden, dropout) for _ in range(experts))
        self.gates = nn.Linear(width, outputs * experts)
        self.heads = nn.ModuleList(nn.Linear(hidden[-1], 1) for _ in range(outputs))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return logits (B, outputs) for inputs (B, width)."""
        outputs = torch.stack([expert(inputs) for expert in self.experts], dim=1)
        gates = torch.softmax(self.gates(inputs).view(-1, len(self.heads), len(self.experts)), dim=2)
        mixed = torch.bmm(gates, outputs)
        return torch.cat([head(mixed[:, task]) for task, head in enumerate(self.heads)], dim=1)
