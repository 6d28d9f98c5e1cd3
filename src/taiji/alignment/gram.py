"""Estimators of the Gram matrix <g_i, g_j> of per-reward gradients, and of POPO's indicators without this matrix.

Invariant: gradients are first summed over micro-batches and processes, and then inner products of the sums are
computed, because the Gram matrix of a sum is not the sum of Gram matrices. Gradients are rows of one flat buffer. Inner
products accumulate in float64 on the buffer's device, and only the K x K result is copied to the host.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

BLOCK = 1 << 22
"""Number of entries of a gradient that are converted to float64 at a time."""


def inner_products(first: Tensor, second: Tensor) -> Tensor:
    """Return the matrix (I, J) of inner products between the rows of (I, P) and (J, P), in float64 on their device."""
    total = torch.zeros(len(first), len(second), dtype=torch.float64, device=first.device)
    for a, b in zip(first.split(BLOCK, dim=1), second.split(BLOCK, dim=1)):
        total.addmm_(a.double(), b.double().T)
    return total


def gram(gradients: Tensor) -> Tensor:
    """Return the Gram matrix (K, K) of K gradients (K, P) on one batch. It is biased: its expectation includes the
    covariance of the gradients' noise."""
    return inner_products(gradients, gradients)


def cross_gram(product: Tensor, share: tuple[float, float] = (0.5, 0.5)) -> Tensor:
    """Return an unbiased Gram matrix (K, K) from two independent halves of the prompts: (A B' + B A') / 2.

    Args:
        product: A B' (K, K), where the rows of A and B are the gradients of the first and the second half.
        share: fraction of the batch in each half. The gradients of both halves are normalised by the whole batch, so
            the gradient of each half is divided by this fraction.
    """
    scaled = product / (share[0] * share[1])
    return (scaled + scaled.T) / 2


class GradientSums:
    """Running sums of gradients over an accumulation step, one sum per direction and half of the prompts.

    Attributes:
        flat: (halves, count, P) in float32 or wider, where P runs over the entries of all trainable parameters.
        parts: views of the same memory in the shapes of the parameters, indexed as ``parts[half][number][position]``.

    Args:
        like: the trainable parameters.
        count: number of directions.
        halves: 1 with the same-batch estimator, 2 with the cross-batch and directional estimators.
        counts: number of scalars that :meth:`reduce` reduces together with the gradients.
    """

    def __init__(self, like: Sequence[Tensor], count: int, halves: int, counts: int = 0) -> None:
        dtype = torch.float64 if any(p.dtype == torch.float64 for p in like) else torch.float32
        sizes = [p.numel() for p in like]
        entries = halves * count * sum(sizes)
        self._storage = torch.zeros(entries + counts, dtype=dtype, device=like[0].device)
        self.flat = self._storage[:entries].view(halves, count, sum(sizes))
        self.parts = [
            [[view.view_as(p) for view, p in zip(row.split(sizes), like)] for row in half] for half in self.flat
        ]
        self.used = [False] * len(like)

    def add(self, half: int, number: int, gradient: Sequence[Tensor | None]) -> None:
        """Add one micro-batch's gradient of direction ``number``: one tensor per parameter, None if the graph does not
        reach it."""
        totals: list[Tensor] = []
        found: list[Tensor] = []
        for position, (total, part) in enumerate(zip(self.parts[half][number], gradient)):
            if part is not None:
                totals.append(total)
                found.append(part.to(total.device, total.dtype))
                self.used[position] = True
        if found:
            torch._foreach_add_(totals, found)

    def reduce(self, reduction: Callable[[Tensor], Tensor], counts: Tensor) -> Tensor:
        """Reduce over processes in one collective, together with ``counts`` (n,). Call this once, at the end of the
        step."""
        tail = self._storage[self.flat.numel() :]
        tail.copy_(counts)
        self._storage.copy_(reduction(self._storage))
        return tail

    def totals(self) -> Tensor:
        """Return the gradients (count, P) of the whole step."""
        return self.flat[0] if len(self.flat) == 1 else self.flat.sum(0)

    def combined(self, weights: Sequence[float]) -> list[Tensor | None]:
        """Return sum_k weights[k] g_k per parameter; ``None`` where no gradient arrived, as in autograd."""
        total = torch.zeros_like(self.flat[0, 0])
        for half in self.flat:
            for weight, row in zip(weights, half):
                if weight:
                    total.add_(row, alpha=float(weight))
        like = self.parts[0][0]
        views = total.split([view.numel() for view in like])
        return [view.view_as(p) if used else None for view, p, used in zip(views, like, self.used)]


def perturbed_change(
    parameters: Sequence[Tensor], direction: Sequence[Tensor], step: float, outputs: Callable[[], list[Tensor]]
) -> list[Tensor]:
    """Return the directional derivative of ``outputs()`` along ``direction``, by central differences of two forward
    passes at theta +- step * v.

    Args:
        parameters: parameters, which are changed in place and then restored bit for bit.
        direction: v, one tensor per parameter.
        step: step of the finite difference in units of v.
        outputs: function that computes, without gradient, the tensors whose change is measured.
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


def square_norm(tensors: Sequence[Tensor]) -> Tensor:
    """Return the sum () of the squares of all entries, in float64."""
    return torch.stack([t.detach().double().square().sum() for t in tensors]).sum()


def directional_step(size: float, length: float, relative: float) -> float:
    """Return the step in units of v for which ||step * v|| = relative * max(||theta||, 1), which balances truncation
    and rounding errors.

    Args:
        size: ||theta||^2.
        length: ||v||^2.
        relative: step relative to the norm of the parameters.
    """
    return relative * max(math.sqrt(size), 1.0) / math.sqrt(length) if length > 0 else 0.0
