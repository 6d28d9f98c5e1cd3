"""Non-crossing conditional quantiles, the pinball loss, and ranks from quantiles (AlignPxtr, arXiv 2503.06920)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import softplus

Array = NDArray[Any]
SMALLEST = 1e-4
"""Smallest distance between neighbouring quantiles."""


class QuantileNetwork(nn.Module):
    """Network that maps conditioning features (n, F), called circumstances, to quantiles (n, K, Q) of K quantities.

    For each quantity, the network predicts the lowest quantile and Q − 1 positive increments.

    Args:
        inputs: number of circumstances F.
        quantities: number of quantities K.
        levels: number of quantile levels Q.
        width: width of the two hidden layers.
    """

    def __init__(self, inputs: int, quantities: int, levels: int, width: int = 64) -> None:
        super().__init__()
        self.shape = (quantities, levels)
        self.layers = nn.Sequential(
            nn.Linear(inputs, width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, quantities * levels),
        )

    def forward(self, circumstances: torch.Tensor) -> torch.Tensor:
        """Return the quantiles (n, K, Q), strictly ascending in the last axis."""
        raw = self.layers(circumstances).view(-1, *self.shape)
        return torch.cat([raw[..., :1], SMALLEST + softplus(raw[..., 1:] - 3.0)], dim=-1).cumsum(dim=-1)


def pinball(quantiles: torch.Tensor, values: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """Return the pinball loss of quantiles (…, Q) at levels τ (Q,) for values (…): the mean of max(τ e, (τ − 1) e) with
    e = value − quantile."""
    error = values.unsqueeze(-1) - quantiles
    return torch.maximum(levels * error, (levels - 1) * error).mean()


def interpolated_ranks(values: Array, quantiles: Array, levels: Array) -> Array:
    """Return the ranks in [0, 1] of values (n,), given the quantiles (n, Q) at levels (Q,) for each value. A rank never
    decreases as its value increases.

    Ranks are linear between quantiles. Beyond the outer quantiles, exponential tails continue the slope of the
    outermost interval, so different values have different ranks until a rank rounds to 0 or 1. Rounding never
    moves a rank past the next level.
    """
    rows = np.arange(len(values))
    place = np.clip((quantiles <= values[:, None]).sum(axis=1) - 1, 0, len(levels) - 2)
    low, high = quantiles[rows, place], quantiles[rows, place + 1]
    inside = levels[place] + (levels[place + 1] - levels[place]) * (values - low) / (high - low)
    inside = np.minimum(inside, levels[place + 1])
    first = (levels[1] - levels[0]) / (quantiles[:, 1] - quantiles[:, 0])
    last = (levels[-1] - levels[-2]) / (quantiles[:, -1] - quantiles[:, -2])
    below, above = np.minimum(values - quantiles[:, 0], 0.0), np.maximum(values - quantiles[:, -1], 0.0)
    under = levels[0] * np.exp(below * first / levels[0])
    over = np.maximum(1 - (1 - levels[-1]) * np.exp(-above * last / (1 - levels[-1])), levels[-1])
    return np.asarray(np.where(below < 0, under, np.where(above > 0, over, inside)))


def fit_quantiles(
    circumstances: Array, values: Array, levels: Array, *, width: int, steps: int, batch: int, rate: float, seed: int
) -> QuantileNetwork:
    """Fit the network to circumstances (n, F) and values (n, K) with the pinball loss, in float64.

    Args:
        levels: (Q,) quantile levels in (0, 1), ascending.
        width: width of the two hidden layers.
        steps, batch, rate: number of steps, batch size and initial learning rate of Adam; the learning rate decays to 0
            by a cosine schedule.
        seed: random seed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = QuantileNetwork(circumstances.shape[1], values.shape[1], len(levels), width).double()
    # The initial network returns nearly the marginal quantiles for all circumstances.
    with torch.no_grad():
        final = network.layers[-1]
        assert isinstance(final, nn.Linear)
        everybody = np.quantile(values, levels, axis=0).T
        gaps = np.maximum(np.diff(everybody, axis=1) - SMALLEST, 1e-4)
        start = np.concatenate([everybody[:, :1], np.log(np.expm1(gaps)) + 3.0], axis=1)
        final.weight.mul_(0.1)
        final.bias.copy_(torch.as_tensor(start.ravel()))
    optimiser = torch.optim.Adam(network.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    inputs, targets, taus = torch.as_tensor(circumstances), torch.as_tensor(values), torch.as_tensor(levels)
    random = np.random.default_rng(seed)
    for _ in range(steps):
        rows = torch.as_tensor(random.integers(len(values), size=min(batch, len(values))))
        loss = pinball(network(inputs[rows]), targets[rows], taus)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return network
