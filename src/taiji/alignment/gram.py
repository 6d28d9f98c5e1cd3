"""Estimators of the Gram matrix <g_i, g_j> of per-reward gradients, and of POPO's indicators without it.

Rule of the house: sum gradients over accumulation steps and processes first, take inner products of the sums last; the
Gram matrix of a sum is not the sum of Gram matrices. Inner products accumulate in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

BLOCK = 1 << 22
"""Entries a gradient is converted to float64 at a time."""

Gradient = list[Tensor]
"""One gradient: a tensor per parameter, in the parameters' order."""


def inner_products(first: Sequence[Gradient], second: Sequence[Gradient]) -> Tensor:
    """Matrix (I, J) of inner products of two families of gradients, float64 on the CPU."""
    total = torch.zeros(len(first), len(second), dtype=torch.float64)
    for position in range(len(first[0])):
        rows = torch.stack([gradient[position].reshape(-1) for gradient in first])
        columns = rows if second is first else torch.stack([gradient[position].reshape(-1) for gradient in second])
        for a, b in zip(rows.split(BLOCK, dim=1), columns.split(BLOCK, dim=1)):
            total += (a.double() @ b.double().T).cpu()
    return total


def gram(gradients: Sequence[Gradient]) -> Tensor:
    """Gram matrix (K, K) of K gradients on one batch. Biased by the noise: E<g^_i, g^_j> contains their covariance."""
    return inner_products(gradients, gradients)


def cross_gram(
    first: Sequence[Gradient], second: Sequence[Gradient], share: tuple[float, float] = (0.5, 0.5)
) -> Tensor:
    """Unbiased Gram matrix (K, K) from two independent halves of the prompts: (A B' + B A') / 2.

    ``share`` holds the fraction of the batch in each half; the gradients are parts of one sum with a common normaliser,
    so each is scaled up to the whole batch.
    """
    product = inner_products(first, second) / (share[0] * share[1])
    return (product + product.T) / 2


def sum_over_processes(gradients: Sequence[Gradient], reduce: Callable[[Tensor], Tensor]) -> None:
    """Replace every gradient by its reduction over processes, in place, one flat buffer at a time."""
    for gradient in gradients:
        flat = reduce(torch.cat([tensor.reshape(-1) for tensor in gradient]))
        for position, part in enumerate(flat.split([tensor.numel() for tensor in gradient])):
            gradient[position] = part.view_as(gradient[position])


class GradientSums:
    """Running sums of per-reward gradients over an accumulation step, in as many parts as there are halves.

    Args:
        like: the trainable parameters.
        count: number of rewards (or of directions) K.
        halves: 1, or 2 for the cross-batch estimate.
    """

    def __init__(self, like: Sequence[Tensor], count: int, halves: int) -> None:
        self.parts: list[list[Gradient]] = [
            [
                [torch.zeros_like(p, dtype=torch.promote_types(p.dtype, torch.float32)) for p in like]
                for _ in range(count)
            ]
            for _ in range(halves)
        ]
        self.used = [False] * len(like)

    def add(self, half: int, number: int, gradient: Sequence[Tensor | None]) -> None:
        """Add one micro-batch's gradient of reward ``number``; ``None`` for a parameter it does not reach."""
        for position, (total, part) in enumerate(zip(self.parts[half][number], gradient)):
            if part is not None:
                total += part
                self.used[position] = True

    def reduce(self, reduction: Callable[[Tensor], Tensor]) -> None:
        """Combine over processes; call once, at the end of the step."""
        for part in self.parts:
            sum_over_processes(part, reduction)

    def totals(self) -> list[Gradient]:
        """The K gradients of the whole step."""
        first, *rest = self.parts
        return [
            [sum((part[k][i] for part in rest), start=tensor) for i, tensor in enumerate(gradient)]
            for k, gradient in enumerate(first)
        ]

    def combined(self, weights: Sequence[float]) -> list[Tensor | None]:
        """sum_k weights[k] g_k per parameter; ``None`` where no gradient arrived, as autograd leaves it."""
        result: list[Tensor | None] = []
        for position, used in enumerate(self.used):
            if not used:
                result.append(None)
                continue
            total = torch.zeros_like(self.parts[0][0][position])
            for part in self.parts:
                for weight, gradient in zip(weights, part):
                    total.add_(gradient[position], alpha=float(weight))
            result.append(total)
        return result


def perturbed_change(
    parameters: Sequence[Tensor], direction: Gradient, step: float, outputs: Callable[[], list[Tensor]]
) -> list[Tensor]:
    """Directional derivative of ``outputs()`` along ``direction`` by central differences of two forwards at theta +- step * v.

    Args:
        parameters: changed in place and put back bit for bit.
        direction: v, one tensor a parameter.
        step: the finite difference's step in units of v.
        outputs: computes the tensors whose change is wanted, without gradient.
    """
    kept = [parameter.detach().clone() for parameter in parameters]
    try:
        with torch.no_grad():
            for parameter, original, v in zip(parameters, kept, direction):
                parameter.copy_(original + step * v.to(original.dtype))
            plus = outputs()
            for parameter, original, v in zip(parameters, kept, direction):
                parameter.copy_(original - step * v.to(original.dtype))
            minus = outputs()
    finally:
        with torch.no_grad():
            for parameter, original in zip(parameters, kept):
                parameter.copy_(original)
    return [(a - b) / (2 * step) for a, b in zip(plus, minus)]


def directional_step(parameters: Sequence[Tensor], direction: Gradient, relative: float) -> float:
    """Step in units of v so that ||step * v|| = relative * max(||theta||, 1), the balance of truncation and rounding."""
    size = sum(float(p.detach().double().square().sum()) for p in parameters) ** 0.5
    length = sum(float(v.double().square().sum()) for v in direction) ** 0.5
    return relative * max(size, 1.0) / length if length > 0 else 0.0
