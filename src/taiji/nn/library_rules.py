"""Weighting rules of the TorchJD library, for comparison. They compute the weights of rewards from the Gram matrix of
the rewards' gradients."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from taiji.core.errors import InputError
from taiji.core.optional import needs
from taiji.nn import objective_weights as functions
from taiji.nn.objective_rule import Observation, Rule, RuleOptions, Source, log_of
from taiji.nn.objective_weights import Vector


@dataclass
class _Library:
    """Gramian weighting of TorchJD, created on first use. A weighting may draw from torch's random state, so each call
    is given a seed."""

    name: str
    options: dict[str, float] = field(default_factory=dict)
    made: dict[str, Any] = field(default_factory=dict)

    def __call__(self, gram: np.ndarray, seed: int) -> Vector:
        import torch

        if not self.made:
            with needs("peers", where="alignment.weighting"):
                from torchjd import aggregation

                self.made["weighting"] = getattr(aggregation, self.name)(**self.options)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return np.asarray(
                self.made["weighting"](torch.as_tensor(gram, dtype=torch.float64)).numpy(), dtype=np.float64
            )


class GramPeer(Rule):
    """Base class of the rules of TorchJD, which compute the weights from the batch's Gram matrix.

    The weights are scaled to sum to one, which does not change the direction of descent.
    """

    source: Source = "gradients"
    library: ClassVar[str] = ""
    arguments: ClassVar[dict[str, float]] = {}

    def __init__(self, count: int, options: RuleOptions) -> None:
        super().__init__(count, options)
        self.weighting = _Library(self.library, self.arguments)

    def update(self, seen: Observation) -> tuple[Vector, Vector | None]:
        if seen.gram is None:
            raise InputError(
                "This rule needs the full Gram matrix.",
                found="gram_estimator='directional'",
                fix="use 'same-batch' or 'cross-batch'",
            )
        there = seen.there(self.count)
        block = np.asarray(seen.gram)[np.ix_(there, there)]
        if not np.trace(block) > 0:
            return self.log_weights, None
        raw = np.maximum(self.weighting(block / np.trace(block), self.options.seed + self.steps), 0.0)
        shares = functions.normalised(raw) if raw.sum() > 0 else functions.uniform(len(block))
        return self.among(there, log_of(shares)), None


class Mgda(GramPeer):
    """Minimum-norm point in the convex hull of the gradients (Desideri 2012), through TorchJD."""

    library = "MGDAWeighting"


class PcGrad(GramPeer):
    """Gradient surgery (Yu et al. 2020), through TorchJD."""

    library = "PCGradWeighting"


class UpGrad(GramPeer):
    """Projection onto the dual cone (Quinton and Rey 2024), through TorchJD."""

    library = "UPGradWeighting"


class FairGrad(GramPeer):
    """Proportional fairness, w_i (G w)_i = 1 for weights w and Gram matrix G, through TorchJD (Nash-MTL, Navon et al.
    2022; FairGrad, Ban and Ji 2024, with alpha = 1)."""

    library = "FairGradWeighting"
    arguments: ClassVar[dict[str, float]] = {"alpha": 1.0}
