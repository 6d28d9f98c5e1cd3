"""Small transformer from a history of vectors to a weighted set of vectors, and the loss between two such sets."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from taiji.nn.sequence_transformer import Block


class IntentNetwork(nn.Module):
    """Transformer from a history to a weighted set of vectors.

    The input is the history followed by m learnt queries. The output of each query is an attention-weighted mean of the
    history's vectors plus a learnt step that is initially zero, so an untrained network returns means of the history.

    Args:
        dimension: width d of the vectors.
        width, heads, layers: width, number of heads and number of blocks of the transformer.
        length: largest number of vectors in a history.
        size: number of vectors per set, m.
    """

    def __init__(self, dimension: int, width: int, heads: int, layers: int, length: int, size: int) -> None:
        super().__init__()
        self.inward = nn.Linear(dimension, width)
        self.position = nn.Parameter(torch.randn(length, width) * 0.02)
        self.query = nn.Parameter(torch.randn(size, width) * 0.5)
        self.blocks = nn.ModuleList(Block(width, heads, 2 * width, 0.0) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.asks, self.answers = nn.Linear(width, width), nn.Linear(width, width)
        self.step, self.weight = nn.Linear(width, dimension), nn.Linear(width, 1)
        nn.init.zeros_(self.step.weight)
        nn.init.zeros_(self.step.bias)

    def forward(self, history: torch.Tensor, there: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return unit vectors (B, m, d) and log-weights (B, m) of weights that sum to 1.

        Args:
            history: (B, L, d) unit vectors, newest first.
            there: (B, L) bool, at least one True per row; None if all are True.
        """
        rows, length, _ = history.shape
        size, width = self.query.shape
        x = torch.cat([self.inward(history) + self.position[:length], self.query.expand(rows, size, width)], dim=1)
        mask = None
        if there is not None:
            seen = torch.cat([there, there.new_ones(rows, size)], dim=1)
            mask = seen[:, None, None, :].expand(rows, 1, length + size, length + size)
        for block in self.blocks:
            x = block(x, mask)
        x = self.norm(x)
        queries = x[:, length:]
        scores = self.asks(queries) @ self.answers(x[:, :length]).transpose(1, 2) / width**0.5
        if there is not None:
            scores = scores.masked_fill(~there[:, None, :], float("-inf"))
        vectors = torch.softmax(scores, dim=-1) @ history + self.step(queries)
        return functional.normalize(vectors, dim=-1), torch.log_softmax(self.weight(queries)[:, :, 0], dim=-1)


def matched(vectors: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the index of the vector matched to each target, (B, k) int64. In descending order of weight, each target
    takes the nearest free vector.

    Args:
        vectors: (B, m, d).
        targets: (B, k, d), by descending weight, k ≤ m.
        weights: (B, k), 0 where there is no target.
    """
    cosines = (targets @ vectors.transpose(1, 2)).detach()
    taken = torch.zeros(cosines.shape[0], cosines.shape[2], dtype=torch.bool, device=cosines.device)
    places = []
    for target in range(cosines.shape[1]):
        place = cosines[:, target].masked_fill(taken, float("-inf")).argmax(dim=1)
        taken = taken | (functional.one_hot(place, taken.shape[1]).bool() & (weights[:, target] > 0)[:, None])
        places.append(place)
    return torch.stack(places, dim=1)


def set_loss(
    vectors: torch.Tensor, logarithms: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Return the loss (B,) of predicted sets against target sets.

    The loss is the weighted mean of 1 − cosine over the matched pairs, plus the cross-entropy of the predicted weights,
    minus the entropy of the target weights. A perfect prediction has loss 0.

    Args:
        vectors: (B, m, d) of length 1.
        logarithms: (B, m) log-weights.
        targets: (B, k, d) of length 1, by descending weight.
        weights: (B, k), sum 1.
    """
    places = matched(vectors, targets, weights)
    own = torch.gather(vectors, 1, places[:, :, None].expand(-1, -1, vectors.shape[2]))
    far = (weights * (1 - (own * targets).sum(dim=2))).sum(dim=1)
    said = torch.gather(logarithms, 1, places)
    certain = torch.where(weights > 0, torch.log(weights.clamp_min(1e-9)), torch.zeros_like(weights))
    return far + (weights * (certain - said)).sum(dim=1)
