"""A ranking model: a factorization machine (Rendle 2010), and a linear layer over all inputs."""

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


class FactorizationMachineSettings(NeuralRankerSettings):
    """Settings in addition to those of every neural ranker."""

    model: str = "factorization_machine"
    factors: PositiveInt = 1
    """Number of factors per embedding, in multiples of ``dimension``."""


class FactorizationMachineNetwork(Network[FactorizationMachineSettings]):
    """Linear layer over the products of all pairs of embeddings, and over all numbers, sequences, ids and vectors."""

    def __init__(self, layout: Layout, outputs: int, settings: FactorizationMachineSettings) -> None:
        super().__init__(layout, outputs, settings)
        self.width = settings.dimension * settings.factors
        self.inputs = FlatInputs(layout, self.width, settings.bins, pooled=True)
        self.heads = nn.Linear(self.width + self.inputs.out_width, outputs)

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return logits, (B, O)."""
        flat, items, _ = self.inputs(batch)
        embed, width = self.inputs.embeddings, self.width
        item = look_up(items, batch["item"]).view(-1, embed.pieces, width)
        context = embed.categories(batch).view(item.shape[0], -1, width)
        factors = torch.cat([embed.users(batch).unsqueeze(1), embed.profile(batch), item, context], dim=1)
        pairs = (factors.sum(dim=1).square() - factors.square().sum(dim=1)) / 2
        return self.heads(torch.cat([pairs, flat], dim=1))

    def prepare(self, arrays: Arrays) -> None:
        """Set the scales of numbers and vectors."""
        self.inputs.prepare(arrays)


class FactorizationMachine(Ranker):
    """A ranker that is a factorization machine."""

    Settings = FactorizationMachineSettings
    network_class = FactorizationMachineNetwork
