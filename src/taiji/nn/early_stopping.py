"""Early stopping. At the end, the weights of the best check are restored."""

from __future__ import annotations

import math

import torch
from torch import nn


class BestWeights:
    """Record of a network's weights at its best check.

    Args:
        network: network in training.
        patience: number of consecutive checks without improvement after which training stops.
    """

    def __init__(self, network: nn.Module, patience: int) -> None:
        self.network, self.patience = network, patience
        self._best, self._least, self._worse = -math.inf, math.inf, 0
        self._state: dict[str, torch.Tensor] | None = None

    def stop(self, value: float, loss: float = math.inf) -> bool:
        """Record a check, and return True if training should stop.

        Args:
            value: metric that decides which weights are kept. Larger is better, and NaN is never an improvement.
            loss: loss on held-out data. A check with the lowest loss so far also counts as an improvement, because a
                metric over the top ranks is mostly noise while a network still learns which items are popular. The loss
                does not decide which weights are kept.
        """
        if value > self._best:
            self._state = {name: held.clone() for name, held in self.network.state_dict().items()}
        self._worse = 0 if value > self._best or loss < self._least else self._worse + 1
        self._best, self._least = max(self._best, value), min(self._least, loss)
        return self._worse >= self.patience

    def restore(self) -> None:
        """Restore the best weights. If no check had a number as its value, the network is not changed."""
        if self._state is not None:
            self.network.load_state_dict(self._state)
