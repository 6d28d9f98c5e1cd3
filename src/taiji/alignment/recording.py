"""One forward, many losses: what the policy's forward returned, cut from the loss so that both can be reused.

TRL's ``_compute_loss`` is run on *leaves* that hold the forward's values. That gives d loss / d log-probability for any
advantage, loss type, clipping and KL without copying a formula, and its product with the Jacobian of the one forward is each
loss's gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

OutputGradient = tuple[Tensor, Tensor | None, Tensor | None]
"""Derivative of a loss by the log-probabilities (B, T), the entropies (B, T) and the auxiliary loss."""


@dataclass
class Part:
    """The rows of one forward call with their outputs, attached to the graph."""

    rows: Tensor
    half: int | None
    logps: Tensor
    entropies: Tensor | None
    auxiliary: Tensor | None
    similarity: Tensor | None = None


@dataclass
class Recording:
    """All forward calls of one micro-batch, and what TRL shall get when it asks for the forward."""

    halves: Tensor | None = None
    evidence: Tensor | None = None
    parts: list[Part] = field(default_factory=list)
    leaves: tuple[Tensor, Tensor | None, Tensor | None] | None = None
    attached: tuple[Tensor, Tensor | None, Tensor | None] | None = None
    replay: tuple[Tensor, Tensor | None, Tensor | None] | None = None
    similarity: Tensor | None = None

    def close(self) -> None:
        """Join the parts in row order and make the leaves."""
        order = torch.argsort(torch.cat([part.rows for part in self.parts]))

        def joined(tensors: list[Tensor | None]) -> Tensor | None:
            present = [tensor for tensor in tensors if tensor is not None]
            return torch.cat(present)[order] if len(present) == len(self.parts) else None

        logps, entropies = joined([p.logps for p in self.parts]), joined([p.entropies for p in self.parts])
        assert logps is not None
        self.similarity = joined([p.similarity for p in self.parts])
        self.attached = (logps, entropies, self.parts[0].auxiliary)
        self.leaves = tuple(None if t is None else t.detach().requires_grad_() for t in self.attached)  # type: ignore[assignment]
        self.replay = self.leaves

    def output_gradient(self, loss: Tensor) -> OutputGradient:
        """Derivative of a loss computed on the leaves."""
        assert self.leaves is not None
        present = [leaf for leaf in self.leaves if leaf is not None]
        found = iter(
            torch.autograd.grad(loss, present, allow_unused=True) if loss.requires_grad else [None] * len(present)
        )
        logps, entropies, auxiliary = (None if leaf is None else next(found) for leaf in self.leaves)
        return (torch.zeros_like(self.leaves[0]) if logps is None else logps, entropies, auxiliary)

    def vector_jacobian_product(
        self, gradient: OutputGradient, half: int, halves: int, parameters: Sequence[Tensor], keep: bool
    ) -> list[Tensor | None]:
        """Gradient by the parameters of the rows in ``half``; one backward over these rows (all rows if ``halves`` is one)."""
        outputs: list[Tensor] = []
        values: list[Tensor] = []
        for part in self.parts:
            if part.half is not None and part.half != half:
                continue
            inside = None
            if halves > 1 and part.half is None:
                assert self.halves is not None
                inside = (self.halves[part.rows] == half).to(part.logps.dtype)[:, None]
            for output, value in ((part.logps, gradient[0]), (part.entropies, gradient[1])):
                if output is not None and value is not None and output.requires_grad:
                    rows = value[part.rows].to(output.dtype)
                    outputs.append(output)
                    values.append(rows if inside is None else rows * inside)
            if part.auxiliary is not None and gradient[2] is not None:
                outputs.append(part.auxiliary)
                values.append(gradient[2] / halves)
        if not outputs:
            return [None] * len(parameters)
        return list(torch.autograd.grad(outputs, list(parameters), values, retain_graph=keep, allow_unused=True))


def scaled_sum(gradients: Sequence[OutputGradient], weights: Sequence[float]) -> OutputGradient:
    """sum_k weights[k] * gradients[k]."""

    def total(position: int) -> Tensor | None:
        terms = [float(w) * value for w, c in zip(weights, gradients) if (value := c[position]) is not None]
        return torch.stack(terms).sum(0) if terms else None

    first = total(0)
    assert first is not None
    return first, total(1), total(2)
