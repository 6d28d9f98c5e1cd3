"""Ways to use the text behind a user, as one vector or several knowledge chunks, inside the ranker."""

from __future__ import annotations

import math

import torch
from torch import nn


class Projection(nn.Module):
    """The dense embedding through one linear layer."""

    def __init__(self, width: int, out_width: int) -> None:
        super().__init__()
        self.out_width = out_width
        self.project = nn.Linear(width, out_width)

    def forward(self, vector: torch.Tensor, present: torch.Tensor, fields: torch.Tensor) -> torch.Tensor:
        """(B, D) vectors to (B, out_width); rows without a vector give 0."""
        return self.project(vector) * present.unsqueeze(1)


class Experts(nn.Module):
    """Hybrid-expert adaptor of KAR (Xi et al. 2023, section 3.3): experts over the text, mixed by a gate over the text.

    Deviation: one kind of text, so only the shared experts are there; the fields join the gate.
    """

    def __init__(self, width: int, out_width: int, dimension: int, fields: int, experts: int = 4) -> None:
        super().__init__()
        self.out_width = out_width
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * out_width), nn.ReLU(), nn.Linear(2 * out_width, out_width))
            for _ in range(experts)
        )
        self.gate = nn.Linear(width + fields * dimension, experts)

    def forward(self, vector: torch.Tensor, present: torch.Tensor, fields: torch.Tensor) -> torch.Tensor:
        """(B, D) vectors and (B, n, dimension) fields to (B, out_width); rows without a vector give 0."""
        outputs = torch.stack([expert(vector) for expert in self.experts], dim=1)
        weights = torch.softmax(self.gate(torch.cat([vector, fields.flatten(1)], dim=1)), dim=1)
        return (weights.unsqueeze(2) * outputs).sum(dim=1) * present.unsqueeze(1)


class SelectAlign(nn.Module):
    """Weigh knowledge chunks, then align them with the ranker's own fields (KSER; see ``docs/papers.md``).

    Chunk weight: sigmoid of a small network over [projected chunk, user, item]. Alignment: the field embeddings X are
    queries, the weighted chunks keys and values; the ranker goes on with X + W_o Z in the place of X. ``W_o`` starts at
    zero, so that at the start the ranker predicts exactly as without it.
    """

    def __init__(self, width: int, dimension: int, chunks: int) -> None:
        super().__init__()
        self.chunks, self.dimension = chunks, dimension
        self.out_width = 0
        self.project = nn.Linear(width // chunks, dimension)
        self.select = nn.Sequential(nn.Linear(3 * dimension, dimension), nn.ReLU(), nn.Linear(dimension, 1))
        self.query, self.key, self.value = (nn.Linear(dimension, dimension, bias=False) for _ in range(3))
        self.output = nn.Linear(dimension, dimension, bias=False)
        nn.init.zeros_(self.output.weight)

    def chunk_weights(self, projected: torch.Tensor, fields: torch.Tensor) -> torch.Tensor:
        """(B, C, d) projected chunks and (B, n, d) fields (user, item, …) to (B, C) weights in (0, 1)."""
        around = fields[:, :2].flatten(1).unsqueeze(1).expand(-1, self.chunks, -1)
        return torch.sigmoid(self.select(torch.cat([projected, around], dim=2)).squeeze(2))

    def forward(self, vector: torch.Tensor, present: torch.Tensor, fields: torch.Tensor) -> torch.Tensor:
        """(B, C * D) chunks and (B, n, d) fields to (B, n, d), to be added to the fields; rows without a vector give 0."""
        projected = self.project(vector.view(-1, self.chunks, self.project.in_features))
        chosen = self.chunk_weights(projected, fields).unsqueeze(2) * projected
        attention = torch.bmm(self.query(fields), self.key(chosen).transpose(1, 2)) / math.sqrt(self.dimension)
        aligned = self.output(torch.bmm(torch.softmax(attention, dim=2), self.value(chosen)))
        return aligned * present.view(-1, 1, 1)
