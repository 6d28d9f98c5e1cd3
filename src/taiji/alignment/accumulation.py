"""Per-reward gradients of one optimiser step, accumulated over micro-batches.

At the end of the step they give the observation for the weighting rule and the gradient of the update.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from taiji.alignment.gram import (
    GradientSums,
    cross_gram,
    directional_step,
    gram,
    inner_products,
    perturbed_change,
    square_norm,
)
from taiji.alignment.placement import WHOLE, Placement, local
from taiji.alignment.recording import OutputGradient, Recording, scaled_sum
from taiji.nn.weighting_rules import Observation


@dataclass(frozen=True)
class Held:
    """Second half of a micro-batch (b rows), kept by the directional estimator until the accumulation step is complete.

    Attributes:
        forward: function that returns the log-probabilities (b, T) under the current parameters.
        by_reward: (K, b, T) derivative of each reward's loss with respect to the log-probabilities.
    """

    forward: Callable[[], Tensor]
    by_reward: Tensor


@dataclass
class AccumulationStep:
    """Gradients g_k of the K rewards' losses over one accumulation step.

    With half-precision parameters, a gradient is accurate to about three digits. In the update sum_k w_k g_k, the
    gradients of conflicting rewards cancel, so summing the rounded g_k would lose most of these digits. Therefore, if
    the weights are known before the step, the update has its own backward pass. This pass replaces the pass of the
    reward with the largest weight. The gradient of this reward is computed from the other passes
    (``docs/explanation/reward-weights.md``).

    Args:
        parameters: trainable parameters.
        count: number of rewards K.
        estimator: "same-batch", "cross-batch" or "directional".
        common: True if the advantage-free part of the loss (KL, entropy bonus) is excluded from the indicators
            (⟨g_k, v⟩, where v is the reference direction) and accumulated as a separate direction.
        reference: (K,) coefficients K * p of the reference direction, where p is the preference (ones for equal
            weights).
        weights: (K,) current weights.
        fresh: True if the rule computes the weights to apply from the gradients of this step; ``weights`` are then
            unused.
        given: True if the update minimises TRL's own loss instead of the weighted sum of the per-reward losses.
        observed: False for a step that only updates the parameters, with one backward pass and no observation.
        placement: distribution of parameters and gradients over processes.

    Attributes:
        held: second halves of the micro-batches, whose change in log-probability is measured at the end of the step
            (directional estimator).
        finite: True if all gradients of the closed step are finite.
    """

    parameters: list[Tensor]
    count: int
    estimator: str
    common: bool
    reference: Sequence[float]
    weights: Sequence[float]
    fresh: bool = False
    given: bool = False
    observed: bool = True
    placement: Placement = WHOLE
    halves: int = field(init=False)
    parts: list[Tensor] = field(init=False)
    sums: GradientSums = field(init=False)
    rows: Tensor = field(init=False)
    applies: Tensor = field(init=False)
    held: list[Held] = field(default_factory=list)
    finite: bool = field(init=False, default=True)

    def __post_init__(self) -> None:
        self.halves = 1 if self.estimator == "same-batch" or not self.observed else 2
        extra = int(self.common or self.given)
        directions = 1 if not self.observed else 2 if self.directional else self.count + extra
        self.parts = [local(parameter) for parameter in self.parameters]
        self.sums = GradientSums(self.parts, directions, self.halves, self.halves + self.count)
        device = self.parts[0].device
        self.rows = torch.zeros(self.halves, dtype=torch.float64, device=device)
        self.applies = torch.zeros(self.count, dtype=torch.float64, device=device)

    @property
    def directional(self) -> bool:
        """True if the indicators of this step are measured with the directional estimator."""
        return self.estimator == "directional" and self.observed

    @property
    def update_alone(self) -> bool:
        """True if the last of the accumulated sums is the gradient of the update itself."""
        return self.directional or self.given or not self.observed

    @property
    def replaced(self) -> int | None:
        """Index of the reward whose backward pass is replaced by the pass of the update; None if none is replaced."""
        if self.update_alone or self.fresh:
            return None
        return max(range(self.count), key=lambda k: self.weights[k])

    def add(
        self,
        recording: Recording,
        rewards: Sequence[OutputGradient],
        common: OutputGradient | None,
        update: OutputGradient | None = None,
        applies: Tensor | None = None,
    ) -> None:
        """Add one micro-batch's vector-Jacobian products.

        This takes K backward passes, or K + 1 with ``common`` or ``update``. With the directional estimator, it takes
        as long as one and a half backward passes, for any K. If the step is not ``observed``, it takes one.

        Args:
            recording: recorded forward pass of the micro-batch.
            rewards: derivative of each reward's loss.
            common: derivative of the loss at advantage zero, if it is excluded from the indicators.
            update: derivative of the loss that the update minimises, if ``given``.
            applies: (B, K) bool mask of the rewards that apply to each row; None for all.
        """
        inside = [_difference(c, common) for c in rewards] if common is not None else list(rewards)
        extra = update if update is not None else common
        directions = inside if extra is None else [*inside, extra]
        if not self.observed:
            directions = [update or scaled_sum(rewards, self.weights)]
        numbers = [range(len(directions))] * self.halves
        if self.directional:  # the change of the second half is measured along the first half's reference direction
            directions, numbers = (
                [scaled_sum(inside, self.reference), update or scaled_sum(rewards, self.weights)],
                [range(2), range(1, 2)],
            )
            second = torch.nonzero(recording.in_half(1)).flatten()
            if len(second) or self.placement.together:
                again = partial(recording.recorded.forward.logps_now, second)
                self.held.append(Held(again, torch.stack([c[0][second] for c in inside])))
        elif self.replaced is not None:
            directions[self.replaced] = scaled_sum(inside, self.weights)
        for half in range(self.halves):
            keep = half < self.halves - 1 and any(part.half is None for part in recording.recorded.parts)
            products = recording.vector_jacobian_products(
                [directions[number] for number in numbers[half]], half, self.halves, self.parameters, keep
            )
            for number, product in zip(numbers[half], products):
                self.sums.add(half, number, product)
            self.rows[half] += recording.in_half(half).sum()
        self.applies += len(recording.recorded.outputs[0]) if applies is None else applies.sum(0)

    def columns(self) -> Tensor:
        """Return the matrix (K, D) that maps the D accumulated sums to the gradients of the rewards."""
        matrix = torch.eye(self.count, self.sums.flat.size(1), dtype=torch.float64, device=self.rows.device)
        if self.replaced is not None:  # g_m = (sum_k w_k g_k - sum_{k != m} w_k g_k) / w_m
            weights = torch.tensor(list(self.weights), dtype=torch.float64, device=self.rows.device)
            matrix[self.replaced, : self.count] = -weights
            matrix[self.replaced, self.replaced] = 1.0
            matrix[self.replaced] /= weights[self.replaced]
        return matrix

    def close(self, step: float) -> Observation | None:
        """Reduce the sums over processes, and return the observation of the step; None if the step is not ``observed``
        or one half of the prompts is empty.

        Args:
            step: size of the finite difference, relative to the norm of the parameters (directional estimator).
        """
        counts = torch.cat([self.rows, self.applies])
        if self.placement.sharded:
            counts, products = self.placement.total(counts, self._products())
        else:
            if self.placement.processes > 1:
                counts = self.sums.reduce(self.placement.mean, counts)
            products = self._products()
        self.finite = bool(torch.isfinite(products).all())
        rows, applies = counts[: self.halves], counts[self.halves :].tolist()
        present = tuple(count > 0 for count in applies)
        share = (rows / rows.sum()).tolist()
        if not self.observed or (self.halves == 2 and min(share) == 0):
            return None
        directions = self.sums.flat.size(1)
        same, further = products[: directions**2].view(directions, -1), products[directions**2 :]
        if self.directional:
            size, length = further.tolist()
            return self._directional(share, directional_step(size, length, step), length, present)
        made = self.columns()
        estimate = same = made @ same @ made.T
        if self.halves == 2:
            estimate = cross_gram(made @ further.view(directions, -1) @ made.T, (share[0], share[1]))
        found = torch.cat([estimate, same.diagonal()[None]]).cpu().numpy()
        squares = [float(square) for square, there in zip(found[-1], present) if there]
        return Observation(
            gram=found[:-1], square_norm=sum(squares) / len(squares) if squares else 0.0, present=present
        )

    def _products(self) -> Tensor:
        """Return the flattened inner products over the parts on this process: (D, D) between the sums of the whole
        step, then (D, D) between the two halves.

        With the same-batch estimator, there is no second block. With the directional estimator, ||theta||^2 and the
        squared length of the first half's reference direction replace it.
        """
        products = [gram(self.sums.totals()).flatten()]
        if self.directional:
            products.append(torch.stack([square_norm(self.parts), square_norm(self.sums.parts[0][0])]))
        elif self.halves == 2:
            products.append(inner_products(self.sums.flat[0], self.sums.flat[1]).flatten())
        return torch.cat(products)

    def _directional(self, share: list[float], step: float, square: float, present: tuple[bool, ...]) -> Observation:
        """Return the observation with the indicators <g_k, v> of all rewards, from two forward passes over the second
        half.

        g_k is the gradient of reward k on the second half, and v is the reference direction on the first half.

        Args:
            share: fraction of the rows in each half.
            step: step of the finite difference, in units of v.
            square: ||v||^2.
            present: True for each reward that occurs in the batch.
        """
        result = torch.zeros(self.count, dtype=torch.float64, device=self.rows.device)
        if step > 0:
            try:
                changes = perturbed_change(self.parts, self.sums.parts[0][0], step, self._held_now)
            finally:
                self.placement.gathered_anew()
            for held, change in zip(self.held, changes):
                result += torch.einsum("kbt,bt->k", held.by_reward.double(), change.double())
        if self.placement.processes > 1:
            result = self.placement.mean(result)
        return Observation(
            indicators=(result / (share[0] * share[1])).cpu().numpy(),
            square_norm=square / share[0] ** 2 / max(sum(present), 1),
            present=present,
        )

    def _held_now(self) -> list[Tensor]:
        """Return the log-probabilities of the second halves under the current parameters."""
        self.placement.gathered_anew()
        return [held.forward() for held in self.held]

    def gradient(self, weights: Sequence[float]) -> list[Tensor | None]:
        """Return the gradient of the update, one tensor per parameter (None where no gradient arrived).

        This is sum_k w_k g_k plus the part common to all rewards, or the gradient of TRL's loss if ``given``.
        """
        directions = self.sums.flat.size(1)
        if self.update_alone:
            return self.sums.combined([0.0] * (directions - 1) + [1.0])
        chosen = list(weights) if self.replaced is None else [float(k == self.replaced) for k in range(self.count)]
        return self.sums.combined([*chosen, 1.0] if self.common else chosen)


def _difference(first: OutputGradient, second: OutputGradient) -> OutputGradient:
    """Return the part of a derivative that depends on the advantage. Terms that all rewards share (entropy, auxiliary
    loss) cancel."""
    return first[0] - second[0], None, None
