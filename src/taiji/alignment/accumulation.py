"""An optimiser step's worth of per-reward gradients: collected over micro-batches, closed into an observation and an update."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from taiji.alignment.gram import Gradient, GradientSums, cross_gram, directional_step, gram, perturbed_change
from taiji.alignment.recording import OutputGradient, Recording, scaled_sum
from taiji.nn.weighting_rules import Observation


@dataclass(frozen=True)
class Held:
    """Second half of a micro-batch, kept by the directional form until the accumulation step is complete."""

    forward: Callable[[], Tensor]
    by_reward: Tensor


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
    halves: int = field(init=False)
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
    ) -> None:
        """Add one micro-batch's vector-Jacobian products: K backward passes, or one and a half whatever K is in the directional form.

        Args:
            recording: the micro-batch's forward.
            rewards: derivative of each reward's loss.
            common: derivative of the loss at advantage zero, when it is kept out of the indicators.
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
            second = torch.nonzero(recording.in_half(1)).flatten()
            if len(second):
                again = partial(recording.recorded.forward.logps_now, second)
                self.held.append(Held(again, torch.stack([c[0][second] for c in inside])))
        for half in range(self.halves):
            for number in numbers[half]:
                keep = number < len(directions) - 1 or (
                    half < self.halves - 1 and any(p.half is None for p in recording.recorded.parts)
                )
                self.sums.add(
                    half,
                    number,
                    recording.vector_jacobian_product(directions[number], half, self.halves, self.parameters, keep),
                )
            self.rows[half] += int(recording.in_half(half).sum())

    def close(self, processes: int, mean: Callable[[Tensor], Tensor], step: float) -> Observation | None:
        """Sum over processes first, then take inner products; None where one half of the prompts is empty.

        Args:
            processes: number of processes.
            mean: a tensor's mean over processes.
            step: size of the finite difference, relative to the parameters' norm (directional form).
        """
        if processes > 1:
            self.sums.reduce(mean)
            self.rows = mean(self.rows)
        share = (self.rows / self.rows.sum()).tolist()
        if self.halves == 2 and min(share) == 0:
            return None
        if self.estimator == "directional":
            return self._directional(share, processes, mean, step)
        totals = self.sums.totals()[: self.count]
        same = gram(totals)
        square = float(same.diagonal().mean())
        if self.halves == 1:
            return Observation(gram=same.numpy(), square_norm=square)
        first, second = (part[: self.count] for part in self.sums.parts)
        return Observation(gram=cross_gram(first, second, (share[0], share[1])).numpy(), square_norm=square)

    def _directional(
        self, share: list[float], processes: int, mean: Callable[[Tensor], Tensor], relative: float
    ) -> Observation:
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
        return Observation(indicators=(result / (share[0] * share[1])).cpu().numpy(), square_norm=square)

    def gradient(self, weights: Sequence[float]) -> list[Tensor | None]:
        """The update's gradient sum_k w_k g_k (the directional form made it with the weights it was opened with)."""
        if self.estimator == "directional":
            return self.sums.combined([0.0, 1.0])
        return self.sums.combined([*weights, 1.0] if self.common else list(weights))


def _difference(first: OutputGradient, second: OutputGradient) -> OutputGradient:
    """The advantage's part of a derivative; the terms every reward shares (entropy, auxiliary loss) drop out."""
    return first[0] - second[0], None, None
