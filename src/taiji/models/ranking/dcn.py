"""DCN-V2 (Wang et al. 2021): explicit feature crosses in parallel with a deep tower."""

from __future__ import annotations

import torch
from pydantic import PositiveInt
from torch import nn

from taiji.data.field_set import Arrays, Layout
from taiji.models.ranking.ranker import Ranker
from taiji.models.ranking.ranking_network import Network
from taiji.models.ranking.settings import NeuralRankerSettings
from taiji.nn.field_embeddings import Batch
from taiji.nn.flat_inputs import FlatInputs
from taiji.nn.towers import layers


class DCNSettings(NeuralRankerSettings):
    """Settings of the model DCN-V2."""

    model: str = "dcn"
    cross_layers: PositiveInt = 3
    """Number of cross layers; n layers give products of up to n + 1 features."""


class CrossLayer(nn.Module):
    """Cross layer: x₀ ⊙ (W x + b) + x (eq. 1), where x₀ is the input of the first cross layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, first: torch.Tensor, current: torch.Tensor) -> torch.Tensor:
        """Return (B, width) from x₀ (B, width) and the previous layer's output x (B, width)."""
        return first * self.linear(current) + current  # type: ignore[no-any-return]


class DCNNetwork(Network[DCNSettings]):
    """Network of cross layers in parallel with a tower (fig. 1b). Both read all inputs; sequences are averaged."""

    def __init__(self, layout: Layout, outputs: int, settings: DCNSettings) -> None:
        super().__init__(layout, outputs, settings)
        self.inputs = FlatInputs(layout, settings.dimension, settings.bins, pooled=True)
        width = self.inputs.out_width
        self.crosses = nn.ModuleList(CrossLayer(width) for _ in range(settings.cross_layers))
        self.tower = layers(width, settings.hidden, settings.dropout)
        self.heads = nn.Linear(width + settings.hidden[-1], outputs)

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return logits, (B, O)."""
        return self.penalised(batch)[0]

    def penalised(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return logits (B, O), and the penalty: mean over rows of the squared norms of user and item embeddings."""
        flat, _, penalty = self.inputs(batch)
        crossed = flat
        for cross in self.crosses:
            crossed = cross(flat, crossed)
        return self.heads(torch.cat([crossed, self.tower(flat)], dim=1)), penalty

    def prepare(self, arrays: Arrays) -> None:
        """Set the scales of numbers and vectors from training rows."""
        self.inputs.prepare(arrays)


class DCNRanker(Ranker):
    """Ranker with feature crosses; see :class:`DCNNetwork`."""

    Settings = DCNSettings
    network_class = DCNNetwork
