"""One forward pass for many losses: each loss is computed on detached copies of the policy's outputs.

TRL's ``_compute_loss`` only passes its model on to the forward pass, so a :class:`Recording` can replace the model. The
first loss runs the forward pass, and all losses receive *leaves*: detached tensors with the values that the forward
pass returned. Autograd then gives d loss / d log-probability for any advantage, loss type, clipping and KL without
copying a formula. The product of this derivative and the Jacobian of the forward pass is the gradient of the loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from taiji.alignment.hooks import TESTED
from taiji.alignment.placement import vector_jacobian_product
from taiji.alignment.tokens import Evidence, hidden_states
from taiji.core.errors import ResourceError

Outputs = tuple[Tensor, Tensor | None, Tensor | None]
"""Log-probabilities (B, T), entropies (B, T) and the auxiliary loss."""
OutputGradient = tuple[Tensor, Tensor | None, Tensor | None]
"""Derivative of a loss with respect to the log-probabilities (B, T), the entropies (B, T) and the auxiliary loss."""


class JointGradients(Protocol):
    """Graph of a forward pass that gives the gradients of many losses at once."""

    def products(self, vectors: Tensor, parameters: Sequence[Tensor]) -> Iterator[list[Tensor | None]]:
        """Yield the gradients of <vector, log-probabilities> for each of D vectors (D, b, T). Can be called only
        once."""


RESIDUE = 4
"""A singular value of a matrix of unit vectors counts as zero if it is at most this multiple of the machine epsilon. In
bfloat16, the limit is about 0.03."""
MEDIA = ("pixel_values", "num_images", "token_type_ids", "mm_token_type_ids")
"""Options of a forward pass. With any of them, the rows of a micro-batch cannot be run in parts."""


@dataclass(frozen=True)
class Forward:
    """Forward pass of the policy on a micro-batch, with TRL's arguments. It can run on any subset of the rows at any
    time.

    Args:
        function: function for the log-probabilities of completions, like ``_get_per_token_logps_and_entropies``.
        model: the policy.
        input_ids: (B, P + T).
        attention_mask: (B, P + T).
        logits_to_keep: T.
        options: other keyword arguments of ``function``.
    """

    function: Callable[..., Outputs]
    model: torch.nn.Module
    input_ids: Tensor
    attention_mask: Tensor
    logits_to_keep: int
    options: dict[str, Any]

    @property
    def divisible(self) -> bool:
        """Return True if the rows can be run in parts."""
        return all(self.options.get(name) is None for name in MEDIA) and not self.options.get("compute_aux_loss")

    def __call__(self, rows: Tensor, *, padded: bool = False, joint: list[JointGradients] | None = None) -> Outputs:
        """Run the forward pass on the given rows.

        If ``padded``, the model runs on TRL's padded batch, and prompts are not shared. If a list ``joint`` is given,
        the forward pass may append its graph to the list and return outputs without a graph, for the gradients of many
        losses at once. If there are no rows, the model still runs, because other processes may wait for it, and the
        outputs have no rows.
        """
        some = rows if len(rows) else rows.new_zeros(1)
        ids, mask = self.input_ids[some], self.attention_mask[some]
        asked = {} if joint is None else {"joint": joint}
        outputs = self.function(self.model, ids, mask, self.logits_to_keep, padded=padded, **asked, **self.options)
        if len(rows):
            return outputs
        logps, entropies, auxiliary = outputs
        return logps[:0], None if entropies is None else entropies[:0], auxiliary

    def logps_now(self, rows: Tensor) -> Tensor:
        """Return the log-probabilities of the rows under the current parameters, without gradient."""
        size = len(self.input_ids)
        with torch.no_grad():
            if self.options.get("pixel_values") is not None:  # rows of pixel_values are image patches
                return self(torch.arange(size, device=self.input_ids.device))[0][rows]
            some = rows if len(rows) else rows.new_zeros(1)
            options = {
                name: value[some] if isinstance(value, Tensor) and value.dim() > 0 and len(value) == size else value
                for name, value in self.options.items()
            }
            return replace(self, options=options)(some)[0][: len(rows)]


@dataclass(frozen=True)
class Part:
    """Rows of one forward call with their outputs.

    Attributes:
        rows: (b,) row numbers in the micro-batch.
        half: half of the prompts to which the rows belong; None if they may belong to both.
        outputs: outputs of the rows, attached to the graph unless ``joint`` holds the graph.
        similarity: (b, T) similarity to PEPO's evidence, if there is evidence.
        joint: graph for the products of many losses at once, if the forward pass kept one.
    """

    rows: Tensor
    half: int | None
    outputs: Outputs
    similarity: Tensor | None = None
    joint: JointGradients | None = None


@dataclass(frozen=True)
class Recorded:
    """Result of a forward pass: its parts, their outputs joined in row order, and leaves with the same values."""

    forward: Forward
    parts: list[Part]
    outputs: Outputs
    leaves: Outputs
    similarity: Tensor | None

    @classmethod
    def joined(cls, forward: Forward, parts: list[Part]) -> Recorded:
        """Join the parts in row order and create the leaves."""
        order = torch.argsort(torch.cat([part.rows for part in parts]))

        def whole(tensors: list[Tensor | None]) -> Tensor | None:
            present = [tensor for tensor in tensors if tensor is not None]
            return torch.cat(present)[order] if len(present) == len(parts) else None

        def leaf(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.detach().requires_grad_()

        logps = torch.cat([part.outputs[0] for part in parts])[order]
        entropies, auxiliary = whole([part.outputs[1] for part in parts]), parts[0].outputs[2]
        leaves = (logps.detach().requires_grad_(), leaf(entropies), leaf(auxiliary))
        return cls(forward, parts, (logps, entropies, auxiliary), leaves, whole([part.similarity for part in parts]))


class ModelNotThere(ResourceError, AttributeError):
    """Error for an attribute that TRL's loss reads from the recording but that only the model has."""


def numerical_rank(singular: Tensor, dtype: torch.dtype) -> int:
    """Return how many of the singular values (D,) of unit vectors exceed the rounding errors of a dtype; at least 1."""
    return max(int((singular > RESIDUE * torch.finfo(dtype).eps).sum()), 1)


class Recording:
    """Replacement for the model in TRL's loss: runs the forward pass for the first loss and replays it for all others.

    Args:
        model: the policy.
        halves: (B,) 0 or 1, the half of the prompts to which each row belongs. Each half gets its own forward pass,
            which costs no more arithmetic and allows a backward pass over one half only.
        evidence: prompt tokens with which PEPO compares the completions.
        attached: replay the attached outputs of the forward pass instead of leaves, for a loss that runs its own
            backward pass.
        together: run a forward pass even for a half without rows, because other processes wait for it.
        jointly: let the forward pass keep a graph for the products of many losses at once (:class:`JointGradients`).
    """

    def __init__(
        self,
        model: torch.nn.Module,
        halves: Tensor | None = None,
        evidence: Evidence | None = None,
        attached: bool = False,
        together: bool = False,
        jointly: bool = False,
    ) -> None:
        self.model, self.halves, self.evidence, self.attached = model, halves, evidence, attached
        self.together, self.jointly = together, jointly
        self._recorded: Recorded | None = None

    def __getattr__(self, name: str) -> Any:
        raise ModelNotThere(
            "TRL's loss uses the model directly instead of only passing it on.",
            expected="_compute_loss only passes the model to _get_per_token_logps_and_entropies",
            found=f"it reads model.{name}",
            fix=f'pip install "{TESTED}"',
        )

    @property
    def recorded(self) -> Recorded:
        """Recorded forward pass. Raise :class:`ResourceError` if no loss has run it."""
        if self._recorded is None:
            raise ResourceError(
                "TRL's loss did not run the policy's forward pass through the expected hook.",
                expected="_compute_loss calls _get_per_token_logps_and_entropies with the model that it receives",
                fix=f'pip install "{TESTED}"',
            )
        return self._recorded

    def replayed(self, forward: Forward) -> Outputs:
        """Return the outputs for TRL's loss; the first call runs the forward pass."""
        if self._recorded is None:
            rows = torch.arange(len(forward.input_ids), device=forward.input_ids.device)
            if self.halves is None or not forward.divisible:
                parts = [self._run(forward, rows, None)]
            else:
                halves = [half for half in (0, 1) if self.together or bool((self.halves == half).any())]
                parts = [self._run(forward, rows[self.halves == half], half) for half in halves]
            self._recorded = Recorded.joined(forward, parts)
        return self._recorded.outputs if self.attached else self._recorded.leaves

    def _run(self, forward: Forward, rows: Tensor, half: int | None) -> Part:
        if self.evidence is None:
            joint: list[JointGradients] = []
            outputs = forward(rows, joint=joint) if self.jointly else forward(rows)
            return Part(rows, half, outputs, joint=joint[0] if joint else None)
        with hidden_states(forward.model) as layers:
            outputs = forward(rows, padded=True)
        return Part(
            rows, half, outputs, self.evidence.similarity(layers[-1][: len(rows)], rows, forward.logits_to_keep)
        )

    def token_statistics(self) -> tuple[Tensor, Tensor]:
        """Return the similarity to the evidence (B, T) and the entropy (B, T) of each completion token.

        Raises:
            ResourceError: the forward pass was run without evidence, or TRL requested no entropies.
        """
        similarity, entropies = self.recorded.similarity, self.recorded.outputs[1]
        if self.evidence is None or similarity is None or entropies is None:
            raise ResourceError(
                "Token weights need each token's similarity to the evidence and its entropy.",
                expected="a recording with evidence, and a loss that requests entropies",
            )
        return similarity, entropies if self.evidence.attached else entropies.detach()

    def in_half(self, half: int) -> Tensor:
        """Return a mask (B,): True for rows that belong to the given half of the prompts. Without halves, all rows are
        in the first."""
        if self.halves is None:
            return torch.full_like(self.recorded.outputs[0][:, 0], half == 0, dtype=torch.bool)
        return self.halves == half

    def output_gradient(self, loss: Tensor) -> OutputGradient:
        """Return the derivative of a loss that was computed on the leaves."""
        leaves = self.recorded.leaves
        present = [leaf for leaf in leaves if leaf is not None]
        found = iter(
            torch.autograd.grad(loss, present, allow_unused=True) if loss.requires_grad else [None] * len(present)
        )
        logps, entropies, auxiliary = (None if leaf is None else next(found) for leaf in leaves)
        return (torch.zeros_like(leaves[0]) if logps is None else logps, entropies, auxiliary)

    def vector_jacobian_products(
        self,
        gradients: Sequence[OutputGradient],
        half: int,
        halves: int,
        parameters: Sequence[Tensor],
        keep: bool,
    ) -> Iterator[list[Tensor | None]]:
        """Yield the vector-Jacobian products of D loss derivatives, in order.

        On the rows of ``half``, the derivatives may be linearly dependent: if a reward is constant over the rollouts,
        if two rewards have proportional advantages, or if there are more rewards than rollouts. One backward pass per
        independent vector then suffices, but all D passes run if other processes wait for them. ``keep`` retains the
        graph for the products of the other half.
        """
        mixture, wanted = self._independent(gradients, half)
        products = self._products(wanted, half, halves, parameters, keep)
        if mixture is None:
            yield from products
            return
        basis = list(products)
        for factors in mixture:
            yield [_mixed(parts, factors) for parts in zip(*basis)]

    def _independent(
        self, gradients: Sequence[OutputGradient], half: int
    ) -> tuple[list[list[float]] | None, Sequence[OutputGradient]]:
        """Return coefficients (D, r) and r < D vectors whose linear combinations are the D given vectors.

        Return None and the given vectors if they are independent.
        """
        inside = self.in_half(half)
        values = torch.stack([gradient[0][inside].flatten() for gradient in gradients]).double()
        plain = all(gradient[1] is None and gradient[2] is None for gradient in gradients)
        if self.together or not plain or not values.numel() or not torch.isfinite(values).all():
            return None, gradients
        norms = values.norm(dim=1, keepdim=True)
        left, singular, right = torch.linalg.svd(torch.where(norms > 0, values / norms, 0.0), full_matrices=False)
        rank = numerical_rank(singular, gradients[0][0].dtype)
        if rank == len(gradients):
            return None, gradients
        vectors = [torch.zeros_like(gradients[0][0]) for _ in range(rank)]
        for vector, row in zip(vectors, right):
            vector[inside] = row.to(vector.dtype).view(-1, vector.size(1))
        return (norms * left * singular)[:, :rank].tolist(), [(vector, None, None) for vector in vectors]

    def _products(
        self,
        gradients: Sequence[OutputGradient],
        half: int,
        halves: int,
        parameters: Sequence[Tensor],
        keep: bool,
    ) -> Iterator[list[Tensor | None]]:
        some = [part for part in self.recorded.parts if part.half in (None, half)]
        if len(some) == 1 and some[0].joint is not None:
            yield from some[0].joint.products(torch.stack([g[0][some[0].rows] for g in gradients]), parameters)
            return
        for number, gradient in enumerate(gradients):
            yield self._product(gradient, half, halves, parameters, keep or number < len(gradients) - 1)

    def _product(
        self, gradient: OutputGradient, half: int, halves: int, parameters: Sequence[Tensor], keep: bool
    ) -> list[Tensor | None]:
        """Return the vector-Jacobian product over the rows of ``half`` (all rows if ``halves`` is one) for the local
        parts of the parameters.

        This takes one backward pass over these rows.
        """
        outputs: list[Tensor] = []
        values: list[Tensor] = []
        for part in self.recorded.parts:
            if part.half is not None and part.half != half:
                continue
            logps, entropies, auxiliary = part.outputs
            inside = None
            if halves > 1 and part.half is None:
                inside = self.in_half(half)[part.rows].to(logps.dtype)[:, None]
            for output, value in ((logps, gradient[0]), (entropies, gradient[1])):
                if output is not None and value is not None and output.requires_grad:
                    rows = value[part.rows].to(output.dtype)
                    outputs.append(output)
                    values.append(rows if inside is None else rows * inside)
            if auxiliary is not None and gradient[2] is not None:
                outputs.append(auxiliary)
                values.append(gradient[2] / halves)
        if not outputs:
            return [None] * len(parameters)
        return vector_jacobian_product(outputs, values, parameters, keep)


def _mixed(parts: Sequence[Tensor | None], factors: Sequence[float]) -> Tensor | None:
    """Return sum_j factors[j] * parts[j], at least in float32; None for parameters without a gradient."""
    terms = [(part, factor) for part, factor in zip(parts, factors) if part is not None]
    if not terms:
        return None
    total = torch.zeros_like(terms[0][0], dtype=torch.promote_types(terms[0][0].dtype, torch.float32))
    for part, factor in terms:
        total.add_(part, alpha=factor)
    return total


def scaled_sum(gradients: Sequence[OutputGradient], weights: Sequence[float]) -> OutputGradient:
    """Return sum_k weights[k] * gradients[k]."""

    def total(position: int) -> Tensor | None:
        terms = [float(w) * value for w, c in zip(weights, gradients) if (value := c[position]) is not None]
        return torch.stack(terms).sum(0) if terms else None

    logps = torch.stack([float(w) * c[0] for w, c in zip(weights, gradients)]).sum(0)
    return logps, total(1), total(2)
