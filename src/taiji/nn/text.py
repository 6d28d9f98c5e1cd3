"""Encoders of a user's text embedding, which are parts of the ranker."""

from __future__ import annotations

import torch
from torch import nn


class Projection(nn.Module):
    """Encoder that consists of one linear layer on the text embedding."""

    def __init__(self, width: int, out_width: int) -> None:
        super().__init__()
        self.out_width = out_width
        self.project = nn.Linear(width, out_width)

    def forward(self, vector: torch.Tensor, present: torch.Tensor, fields: torch.Tensor) -> torch.Tensor:
        """Return outputs (B, out_width) for text vectors (B, D). Rows without a vector, where ``present`` (B,) is 0,
        give 0. ``fields`` is not used."""
        return self.project(vector) * present.unsqueeze(1)


class Experts(nn.Module):
    """Hybrid-expert adaptor of KAR (Xi et al. 2023, section 3.3): experts that read the text's vector and are mixed by
    a softmax gate.

    Deviations: all experts are shared, because there is only one kind of text, and the gate reads the embeddings of
    user, item and profile in addition to the vector.
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
        """Return outputs (B, out_width) for text vectors (B, D) and embedded fields (B, n, dimension). Rows without
        a vector, where ``present`` (B,) is 0, give 0."""
        outputs = torch.stack([expert(vector) for expert in self.experts], dim=1)
        weights = torch.softmax(self.gate(torch.cat([vector, fields.flatten(1)], dim=1)), dim=1)
        return (weights.unsqueeze(2) * outputs).sum(dim=1) * present.unsqueeze(1)
