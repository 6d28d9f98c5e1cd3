"""An optimiser step's worth of per-reward gradients: collected over micro-batches, closed into an observation and an update."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from taiji.alignment.gram import Gradient, GradientSums, cross_gram, directional_step, gram, perturbed_change
from taiji.alignment.recording import OutputGradient, Recording, scaled_sum

if TYPE_CHECKING:
    import numpy as np


@dataclass
class Held:
    """Second half of a micro-batch, kept by the directional form until the accumulation step is complete."""

    forward: Callable[[], Tensor]
    by_reward: Tensor


@dataclass
class Estimate:
    """Estimates of a closed accumulation step: the Gram matrix or only the indicators, and the batch's mean squared gradient norm."""

    gram: np.ndarray | None = None
    indicators: np.ndarray | None = None
    square_norm: float = 0.0
    usable: bool = True


@dataclass
class AccumulationStep:
    """Gradients of one accumulation step.

    Args:
        parameters: trainable parameters.
        count: rewards K.
        estimator: "same-batch", "cross-batch" or "directional".
        common: whether the advantage-free part of the loss (KL, entropy bonus) is kept out of the indicators and carried as a
            direction of its own.
        reference: (K,) K * p, the reference direction's coefficients (ones for equal weights).
        weights: (K,) weights in force; the directional form needs them at each micro-batch.
    """

    parameters: list[Tensor]
    count: int
    estimator: str
    common: bool
    reference: Sequence[float]
    weights: Sequence[float]
    sums: GradientSums = field(init=False)
    rows: Tensor = field(init=False)
    held: list[Held] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.halves = 1 if self.estimator == "same-batch" else 2
        directions = 2 if self.estimator == "directional" else self.count + int(self.common)
        self.sums = GradientSums(self.parameters, directions, self.halves)
        self.rows = torch.zeros(self.halves, dtype=torch.float64, device=self.parameters[0].device)

    def add(
        self,
        recording: Recording,
        rewards: Sequence[OutputGradient],
        common: OutputGradient | None,
        again: Callable[[Tensor], Tensor],
    ) -> None:
        """Add one micro-batch's vector-Jacobian products: K backward passes, or one and a half whatever K is in the directional form.

        Args:
            recording: the micro-batch's forward.
            rewards: derivative of each reward's loss.
            common: derivative of the loss at advantage zero, when it is kept out of the indicators.
            again: repeats the forward of some rows without gradient and returns their log-probabilities (directional form).
        """
        inside = [_difference(c, common) for c in rewards] if common is not None else list(rewards)
        directions = inside if common is None else [*inside, common]
        numbers = [range(len(directions))] * self.halves
        if (
            self.estimator == "directional"
        ):  # along the first half's reference direction, the second half's change is measured
            directions, numbers = (
                [scaled_sum(inside, self.reference), scaled_sum(rewards, self.weights)],
                [range(2), range(1, 2)],
            )
            assert recording.halves is not None
            second = torch.nonzero(recording.halves == 1).flatten()
            if len(second):
                self.held.append(Held(partial(again, second), torch.stack([c[0][second] for c in inside])))
        for half in range(self.halves):
            for number in numbers[half]:
                keep = number < len(directions) - 1 or (
                    half < self.halves - 1 and any(p.half is None for p in recording.parts)
                )
                self.sums.add(
                    half,
                    number,
                    recording.vector_jacobian_product(directions[number], half, self.halves, self.parameters, keep),
                )
            self.rows[half] += len(rewards[0][0]) if recording.halves is None else int((recording.halves == half).sum())

    def close(self, processes: int, mean: Callable[[Tensor], Tensor], step: float) -> Estimate:
        """Sum over processes first, then take inner products; unusable where one half of the prompts is empty."""
        if processes > 1:
            self.sums.reduce(mean)
            self.rows = mean(self.rows)
        share = (self.rows / self.rows.sum()).tolist()
        if self.halves == 2 and min(share) == 0:
            return Estimate(usable=False)
        if self.estimator == "directional":
            return self._directional(share, processes, mean, step)
        totals = self.sums.totals()[: self.count]
        same = gram(totals)
        square = float(same.diagonal().mean())
        if self.halves == 1:
            return Estimate(gram=same.numpy(), square_norm=square)
        first, second = (part[: self.count] for part in self.sums.parts)
        return Estimate(gram=cross_gram(first, second, (share[0], share[1])).numpy(), square_norm=square)

    def _directional(
        self, share: list[float], processes: int, mean: Callable[[Tensor], Tensor], relative: float
    ) -> Estimate:
        """<g_k, v> for all rewards at once, g_k of the second half and v of the first: two forwards of the second half."""
        direction: Gradient = self.sums.parts[0][0]
        result = torch.zeros(self.count, dtype=torch.float64, device=self.rows.device)
        step = directional_step(self.parameters, direction, relative)
        if step > 0:
            changes = perturbed_change(self.parameters, direction, step, lambda: [held.forward() for held in self.held])
            for held, change in zip(self.held, changes):
                result += torch.einsum("kbt,bt->k", held.by_reward.double(), change.double())
        if processes > 1:
            result = mean(result)
        square = sum(float(t.double().square().sum()) for t in direction) / share[0] ** 2 / self.count
        return Estimate(indicators=(result / (share[0] * share[1])).cpu().numpy(), square_norm=square)

    def gradient(self, weights: Sequence[float]) -> list[Tensor | None]:
        """The update's gradient sum_k w_k g_k (the directional form made it with the weights it was opened with)."""
        if self.estimator == "directional":
            return self.sums.combined([0.0, 1.0])
        return self.sums.combined([*weights, 1.0] if self.common else list(weights))


def _difference(first: OutputGradient, second: OutputGradient) -> OutputGradient:
    """The advantage's part of a derivative; the terms every reward shares (entropy, auxiliary loss) drop out."""
    return first[0] - second[0], None, None
