"""Early stopping, with the weights of the best check restored at the end."""

from __future__ import annotations

import math

import torch
from torch import nn


class BestWeights:
    """Weights of a network at its best check.

    Args:
        network: the network in training. patience: checks without improvement after which training stops.
    """

    def __init__(self, network: nn.Module, patience: int) -> None:
        self.network, self.patience = network, patience
        self._best, self._worse = -math.inf, 0
        self._state: dict[str, torch.Tensor] | None = None

    def stop(self, value: float) -> bool:
        """Record the value of a check (larger is better; NaN is no improvement) and return whether training should
        stop."""
        if value > self._best:
            self._best, self._worse = value, 0
            self._state = {name: held.clone() for name, held in self.network.state_dict().items()}
        else:
            self._worse += 1
        return self._worse >= self.patience

    def restore(self) -> None:
        """Restore the best weights, if any check recorded some."""
        if self._state is not None:
            self.network.load_state_dict(self._state)
