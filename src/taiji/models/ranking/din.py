"""DIN (Zhou et al. 2018): a small network weights each interaction of the history by its relevance to the candidate."""

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
from taiji.nn.lookup import look_up
from taiji.nn.towers import layers


class DINSettings(NeuralRankerSettings):
    """Settings of the model DIN."""

    model: str = "din"
    unit: PositiveInt = 36
    """Hidden width of the activation unit."""


class ActivationUnit(nn.Module):
    """Sum of a sequence's items, weighted by relevance to the candidate. The weights are not normalised (eq. 3).

    Deviation from the paper: the activation is ReLU instead of Dice.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.weigh = nn.Sequential(nn.Linear(4 * width, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, items: torch.Tensor, item: torch.Tensor, sequence: torch.Tensor) -> torch.Tensor:
        """Return the pooled sequence per row, (B, width).

        Args:
            items: (U, width) distinct items, where row 0 is the padding.
            item, sequence: indices into ``items``, (B,) and (R, L). The B rows are R requests with B / R consecutive
                candidates each.
        """
        requests, length = sequence.shape
        keys = look_up(items, sequence).unsqueeze(1)
        query = look_up(items, item).view(requests, -1, 1, items.shape[1])
        keys, query = torch.broadcast_tensors(keys, query)
        weights = self.weigh(torch.cat([query, keys, query - keys, query * keys], dim=3))
        weights = weights * (sequence != 0).to(weights.dtype).view(requests, 1, length, 1)
        return (weights * keys).sum(dim=2).view(item.shape[0], -1)


class DINNetwork(Network[DINSettings]):
    """Network with one tower over all inputs and over the pooled sequences."""

    def __init__(self, layout: Layout, outputs: int, settings: DINSettings) -> None:
        super().__init__(layout, outputs, settings)
        self.inputs = FlatInputs(layout, settings.dimension, settings.bins, pooled=False)
        width = self.inputs.item_width
        self.attention = nn.ModuleDict({name: ActivationUnit(width, settings.unit) for name in layout.sequences})
        self.tower = layers(self.inputs.out_width + len(self.attention) * width, settings.hidden, settings.dropout)
        self.heads = nn.Linear(settings.hidden[-1], outputs)

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return logits, (B, O)."""
        return self.penalised(batch)[0]

    def penalised(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return logits (B, O), and the penalty: mean over rows of the squared norms of user and item embeddings."""
        flat, items, penalty = self.inputs(batch)
        attended = [unit(items, batch["item"], batch[name]) for name, unit in self.attention.items()]
        return self.heads(self.tower(torch.cat([flat, *attended], dim=1))), penalty

    def prepare(self, arrays: Arrays) -> None:
        """Set the scales of numbers and vectors from training rows."""
        self.inputs.prepare(arrays)


class DINRanker(Ranker):
    """Ranker with DIN's activation unit; see :class:`DINNetwork`."""

    Settings = DINSettings
    network_class = DINNetwork
