"""Small transformer that maps a history of vectors to a weighted set of vectors, and the loss between two such sets."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from taiji.nn.sequence_transformer import Block

Array = NDArray[Any]


class IntentNetwork(nn.Module):
    """Transformer that maps a history to a weighted set of m vectors.

    The input is the history followed by m learnt queries. The output of each query is an attention-weighted mean of the
    history's vectors plus a learnt step, normalised to length 1. The step is initially zero, so an untrained network
    returns weighted means of the history.

    Args:
        dimension: width d of the vectors.
        width, heads, layers: width, number of heads and number of blocks of the transformer.
        length: largest number of vectors in a history.
        size: number m of vectors per set.
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
        """Return unit vectors (B, m, d) and the logarithms (B, m) of their weights; the weights sum to 1 per set.

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


class OneHistory:
    """Copy of a trained :class:`IntentNetwork` that reads one history at a time.

    The matrix products of a single history are so small that PyTorch's overhead per operation takes most of the time.
    The same computation in NumPy needs fewer operations, because the scale and shift of each norm are merged into the
    layer that follows it.

    Args:
        network: trained network, whose weights are copied.
    """

    def __init__(self, network: IntentNetwork) -> None:
        self._width = network.query.shape[1]
        self._inward, self._step = _layer(network.inward), _layer(network.step, network.norm)
        self._position, self._query = _array(network.position), _array(network.query)
        self._blocks = [_block(block) for block in network.blocks]  # type: ignore[arg-type]
        self._asks, self._answers, self._weight = (
            _layer(layer, network.norm) for layer in (network.asks, network.answers, network.weight)
        )

    def __call__(self, history: Array) -> tuple[Array, Array]:
        """Return unit vectors (m, d) and their weights (m,), which sum to 1.

        Args:
            history: (L, d) unit vectors, newest first, L ≥ 1.
        """
        length, width = len(history), self._width
        x = np.concatenate([_applied(self._inward, history) + self._position[:length], self._query])
        for heads, projection, out, first, second in self._blocks:
            parts = _applied(projection, _standard(x)).reshape(len(x), 3, heads, width // heads)
            query, key, value = parts.transpose(1, 2, 0, 3)
            pooled = _softmax(query @ key.transpose(0, 2, 1) / (width // heads) ** 0.5) @ value
            x += _applied(out, pooled.transpose(1, 0, 2).reshape(len(x), width))
            hidden = functional.gelu(torch.from_numpy(_applied(first, _standard(x)))).numpy()
            x += _applied(second, hidden)
        x = _standard(x)
        queries = x[length:]
        scores = _applied(self._asks, queries) @ _applied(self._answers, x[:length]).T / width**0.5
        vectors = _softmax(scores) @ history + _applied(self._step, queries)
        vectors /= np.maximum(np.sqrt(np.einsum("md,md->m", vectors, vectors)), 1e-12)[:, None]
        return vectors, _softmax(_applied(self._weight, queries)[:, 0])


Layer = tuple[Array, Array]
"""Linear layer: matrix (in, out) and shift (out,)."""


def _array(tensor: torch.Tensor) -> Array:
    return tensor.detach().numpy().copy()


def _layer(linear: nn.Linear, norm: nn.LayerNorm | None = None) -> Layer:
    """Return a linear layer into which the scale and shift of the preceding norm are merged."""
    weight, bias = _array(linear.weight), _array(linear.bias)
    if norm is None:
        return weight.T.copy(), bias
    return (weight * _array(norm.weight)).T.copy(), bias + weight @ _array(norm.bias)


def _block(block: Block) -> tuple[int, Layer, Layer, Layer, Layer]:
    """Return the number of heads of a block and its layers: projection, attention output, and both feed-forward
    layers."""
    return (
        block.heads,
        _layer(block.projection, block.attention_norm),
        _layer(block.out),
        _layer(block.first, block.forward_norm),
        _layer(block.second),
    )


def _applied(layer: Layer, x: Array) -> Array:
    return x @ layer[0] + layer[1]


def _standard(x: Array) -> Array:
    """Return rows with mean 0 and variance 1, as a layer norm does before its scale and shift."""
    x = x - x.mean(axis=1, keepdims=True)
    return x / np.sqrt(np.einsum("nd,nd->n", x, x) / x.shape[1] + 1e-5)[:, None]


def _softmax(scores: Array) -> Array:
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def matched(vectors: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the index (B, k) int64 of the vector matched to each target. The targets choose in descending order of
    weight, and each target takes the nearest vector that is still free.

    Args:
        vectors: (B, m, d) predicted vectors.
        targets: (B, k, d) target vectors, by descending weight, with k ≤ m.
        weights: (B, k) weights of the targets, 0 where there is no target.
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

    The loss is the weighted mean of 1 − cosine over the matched pairs, plus the Kullback–Leibler divergence KL(target
    weights ‖ predicted weights). A perfect prediction has loss 0.

    Args:
        vectors: (B, m, d) predicted vectors of length 1.
        logarithms: (B, m) logarithms of the predicted weights.
        targets: (B, k, d) target vectors of length 1, by descending weight.
        weights: (B, k) weights of the targets, which sum to 1 per set.
    """
    places = matched(vectors, targets, weights)
    own = torch.gather(vectors, 1, places[:, :, None].expand(-1, -1, vectors.shape[2]))
    far = (weights * (1 - (own * targets).sum(dim=2))).sum(dim=1)
    said = torch.gather(logarithms, 1, places)
    certain = torch.where(weights > 0, torch.log(weights.clamp_min(1e-9)), torch.zeros_like(weights))
    return far + (weights * (certain - said)).sum(dim=1)
