"""A ranking model: a factorization machine (Rendle 2010) with one set of outputs per task."""

import torch
from pydantic import PositiveInt
from torch import nn

from taiji.data.field_set import Arrays, Layout
from taiji.models.ranking.network import Network
from taiji.models.ranking.ranker import Ranker
from taiji.models.ranking.settings import NeuralRankerSettings
from taiji.nn.field_embeddings import Batch, FieldEmbeddings, NumberEncoding
from taiji.nn.lookup import look_up


class FactorizationMachineSettings(NeuralRankerSettings):
    """Settings beside those that every neural ranker has."""

    model: str = "factorization_machine"
    factors: PositiveInt = 1
    """Sets of factors for each output, as multiples of ``dimension``."""


class FactorizationMachineNetwork(Network[FactorizationMachineSettings]):
    """Products of all pairs of embeddings, and linear numbers."""

    def __init__(self, layout: Layout, outputs: int, settings: FactorizationMachineSettings) -> None:
        super().__init__(layout, outputs, settings)
        width = settings.dimension * settings.factors
        self.embeddings = FieldEmbeddings(layout, width)
        self.numbers = NumberEncoding(len(layout.numbers), settings.bins)
        self.heads = nn.Linear(2 * width + self.numbers.out_width, outputs)

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return logits, (B, O)."""
        embed, rows = self.embeddings, len(batch["item"])
        item = look_up(embed.items(batch), batch["item"]).view(rows, -1, embed.width)
        context = embed.categories(batch).view(rows, -1, embed.width)
        factors = torch.cat([embed.users(batch).unsqueeze(1), embed.profile(batch), item, context], dim=1)
        total = factors.sum(dim=1)
        pairs = (total.square() - factors.square().sum(dim=1)) / 2
        return self.heads(torch.cat([total, pairs, self.numbers(batch["numbers"])], dim=1))

    def prepare(self, arrays: Arrays) -> None:
        """Set the scales of the numbers."""
        self.numbers.fit(arrays.numbers)


class FactorizationMachine(Ranker):
    """A ranker that is a factorization machine."""

    Settings = FactorizationMachineSettings
    network_class = FactorizationMachineNetwork
