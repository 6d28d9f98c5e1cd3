"""SOLAR (arXiv 2603.02561): candidates attend to the whole of a long history by low-rank attention.

No interactions are selected beforehand. The method is reconstructed from the abstract; see
:mod:`taiji.nn.low_rank_attention` for the operators.
"""

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
from taiji.nn.low_rank_attention import LowRankAttention, Operator
from taiji.nn.towers import layers


class LifelongSettings(NeuralRankerSettings):
    """Settings of the lifelong ranker."""

    model: str = "lifelong"
    history: PositiveInt = 1000
    """Number of most recent interactions of the user that the model sees."""
    operator: Operator = "interest_softmax"
    """Attention over the history: `full_softmax`; `factored_softmax`, an approximation of rank `rank` of the full
    softmax; or `interest_softmax` over `rank` interests, whose cost per candidate does not depend on the length of the
    history."""
    rank: PositiveInt = 8
    """Rank of `factored_softmax`, or number of interests of `interest_softmax`."""
    attended: PositiveInt = 16
    """Width of the queries, keys and values of the attention."""


class LifelongNetwork(Network[LifelongSettings]):
    """Network with one tower over all inputs and over the results of the candidate's attention to each sequence."""

    def __init__(self, layout: Layout, outputs: int, settings: LifelongSettings) -> None:
        super().__init__(layout, outputs, settings)
        self.inputs = FlatInputs(layout, settings.dimension, settings.bins, pooled=False)
        width, attended = self.inputs.item_width, settings.attended
        names = tuple(layout.sequences)
        self.keys = nn.ModuleDict({name: nn.Linear(width, attended, bias=False) for name in names})
        self.queries = nn.ModuleDict({name: nn.Linear(width, attended, bias=False) for name in names})
        aged = [name for name, (_, has_ages) in layout.sequences.items() if has_ages]
        self.ages = nn.ModuleDict({name: nn.Linear(1, attended, bias=False) for name in aged})
        self.attention = nn.ModuleDict(
            {name: LowRankAttention(attended, settings.rank, settings.operator) for name in names}
        )
        total = self.inputs.out_width + 2 * len(names) * attended
        self.tower = layers(total, settings.hidden, settings.dropout)
        self.heads = nn.Linear(settings.hidden[-1], outputs)

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return logits, (B, O)."""
        return self.penalised(batch)[0]

    def penalised(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return logits (B, O), and the penalty: mean over rows of the squared norms of user and item embeddings."""
        flat, items, penalty = self.inputs(batch)
        parts = [flat]
        for name, attention in self.attention.items():
            sequence = batch[name]
            there = sequence != 0
            history = look_up(self.keys[name](items), sequence)
            if name in self.ages:  # the attention itself ignores the order of interactions
                history = history + self.ages[name](batch[f"{name}_age"].unsqueeze(2))
            history = history * there.to(history.dtype).unsqueeze(2)
            query = look_up(self.queries[name](items), batch["item"])
            grouped = query.view(sequence.shape[0], -1, self.settings.attended)
            found = attention(grouped, history, there).view(-1, self.settings.attended)
            parts += [found, found * query]
        return self.heads(self.tower(torch.cat(parts, dim=1))), penalty

    def prepare(self, arrays: Arrays) -> None:
        """Set the scales of numbers and vectors from training rows."""
        self.inputs.prepare(arrays)


class LifelongRanker(Ranker):
    """Ranker for long histories; see :class:`LifelongNetwork`."""

    Settings = LifelongSettings
    network_class = LifelongNetwork
