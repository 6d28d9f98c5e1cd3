"""Many vector-Jacobian products of one shared forward pass, with their common work done only once.

K rewards need K gradients of the same log-probabilities, so there are K vectors with one entry per scored token. If
each reward gives a sequence a single number (its advantage), the entries of the K vectors for a sequence are multiples
of one vector. A backward pass is linear, so a single pass through the private tokens of the sequence (its completion)
then serves all K vectors. With a KL term, the entries are linear combinations of two vectors, and two passes suffice.
The K vectors are distinguished only in sums over sequences, namely in the gradients of LoRA's factors and of the keys
and values of shared tokens. Only the shared tokens (the prompt) need K passes.

The forward pass therefore runs in two graphs, first for the shared and then for the private tokens. K gradients cost R
passes through the private tokens and K passes through the shared tokens, where R is the largest rank of the K vectors
within a sequence. The result is exact up to rounding.

In addition to the forward pass, memory holds K gradients of the shared tokens' keys and values, and K gradients of the
trained parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from taiji.language.prefix_attention import (
    Attended,
    attend_above,
    attend_within,
    best_backend,
    flash_backward,
    place,
    take,
)
from taiji.language.prefix_forward import SharedLogprobs, bare_model, packed_hidden, scored_places
from taiji.language.prefix_head import head_of, token_logprobs
from taiji.language.prefix_lora import RowSums, gradients_by_row, sole_adapters
from taiji.language.prefix_products import Factors, extended
from taiji.language.prefix_split import Above, SplitTree
from taiji.language.prefix_tree import MIN_SHARED, PackedTree

RESIDUE = 16
"""Singular values of at most this number times the machine epsilon times the largest singular value are regarded as
rounding errors and do not count towards the rank."""


class _Shared:
    """Keys and values of the shared tokens by layer, each (1, Hk, S, d) and attached to the autograd graph."""

    def __init__(self) -> None:
        self.layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def keep(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
        """Store the keys and values of a layer. In gradient checkpointing, a layer runs twice, and the first run
        counts."""
        self.layers.setdefault(layer, (key, value))


class _Private:
    """Attention of the private tokens, called by the layers of the model.

    Its backward pass adds the gradients of the shared keys and values to ``sums``, and does not pass them to autograd.

    Attributes:
        weights: (D, sequences) coefficients of the D vectors (K in the module docstring) in the current backward pass.
        sums: D gradients of the shared keys and values by layer, each (D, Hk, S, d).
    """

    def __init__(self, tree: SplitTree, shared: _Shared) -> None:
        self.tree, self.shared = tree, shared
        self.weights: torch.Tensor = torch.empty(0, 0)
        self.sums: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None
    ) -> torch.Tensor:
        """Return the attention output (1, T, Hq, d) for query, key and value (1, H, T, d)."""
        keys, values = (tensor.detach() for tensor in self.shared.layers[layer])
        out: torch.Tensor = _Above.apply(
            query, key, value, keys, values, self, layer, query.shape[-1] ** -0.5 if scale is None else scale
        )
        return out

    def weighted(self, parts: torch.Tensor, sequences: torch.Tensor) -> torch.Tensor:
        """Return the D sums (D, Hk, s, d) of gradients (B, Hk, s, d) that come from the sequences (B,)."""
        with torch.autocast(parts.device.type, enabled=False):  # the backward pass may run inside the loss's autocast
            return (self.weights[:, sequences] @ parts.flatten(1).to(self.weights.dtype)).unflatten(1, parts.shape[1:])

    def add(self, layer: int, own: slice, like: torch.Tensor, found: Sequence[torch.Tensor]) -> None:
        """Add the D gradients of a shared segment's keys and values to ``sums``.

        Args:
            layer: index of the layer.
            own: tokens of the segment in the shared packing.
            like: tensor with the shape of the shared keys, (1, Hk, S, d).
            found: gradients of keys and values, each (D, Hk, s, d).
        """
        if layer not in self.sums:
            shape = (len(self.weights), *like.shape[1:])
            self.sums[layer] = (self.weights.new_zeros(shape), self.weights.new_zeros(shape))
        for total, part in zip(self.sums[layer], found):
            total[:, :, own] += part


def by_products(
    factors: Factors, keys: torch.Tensor, values: torch.Tensor, part: Above, private: _Private
) -> tuple[torch.Tensor, ...]:
    """Return the gradients for the attention of private tokens to a shared segment, as products in bfloat16.

    Returns:
        gradient of the queries (1, Hq, n, d), and the D gradients of keys and values, each (D, Hk, s, d).
    """
    query, grad = (t[:, :, part.below] for t in (factors.query, factors.grad))
    key, value = (extended(t[:, :, part.own], None) for t in (keys, values))
    weights = private.weights[:, private.tree.sequence[part.below]]
    crossing = replace(factors, query=query, grad=grad, key=key, value=value)
    back, *found = crossing.gradients(causal=False, weights=weights)
    return back, *(t[0].permute(2, 0, 1, 3) for t in found)


class _Above(torch.autograd.Function):
    """Attention of private tokens to their own segments and to their shared ancestors.

    The gradients of the ancestors' keys and values are added to :class:`_Private`.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        private: _Private,
        layer: int,
        scale: float,
    ) -> torch.Tensor:
        out, lse = attend_within(query, key, value, private.tree.private.levels, scale)
        for part in private.tree.above:
            attend_above(out, lse, part.below, query, keys[:, :, part.own], values[:, :, part.own], scale)
        ctx.save_for_backward(query, key, value, keys, values, out, lse)
        ctx.private, ctx.layer, ctx.scale = private, layer, scale
        return out.unsqueeze(0)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
        query, key, value, keys, values, out, lse = ctx.saved_tensors
        private: _Private = ctx.private
        seen = Attended.of(grad, (query, key, value, out, lse), ctx.scale)
        grads = seen.within(private.tree.private.levels)
        for part in private.tree.above:
            if seen.factors is not None:
                found = by_products(seen.factors, keys, values, part, private)
                grads[0][part.below] += found[0][0].transpose(0, 1)
                private.add(ctx.layer, part.own, keys, found[1:])
                continue
            # The terms of a sum over sequences may cancel, so they are not rounded to half precision first.
            wide = torch.promote_types(query.dtype, torch.float32)
            above = [tensor[:, :, part.own].to(wide) for tensor in (keys, values)]
            for level, sequences in part.levels:
                rows, taken = seen.rows(level), [take(t, level) for t in (seen.query, seen.out, seen.lse)]
                rows, asking, answer, sums = (t.to(wide) for t in (rows, *taken))
                asked, given = (tensor.expand(len(rows), -1, -1, -1) for tensor in above)
                piece, *each = flash_backward(rows, asking, asked, given, answer, sums, causal=False, scale=ctx.scale)
                at, piece = place(level, piece.transpose(1, 2).to(grads[0].dtype))
                grads[0][at] += piece
                private.add(ctx.layer, part.own, keys, [private.weighted(t, sequences) for t in each])
        return (*(g.to(query.dtype).transpose(0, 1).unsqueeze(0) for g in grads), None, None, None, None, None)


def row_factors(values: torch.Tensor, sequence: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Express D vectors, within each sequence, as linear combinations of as few vectors as possible.

    Args:
        values: (D, N), in which the tokens of a sequence are adjacent.
        sequence: (N,) index of each value's sequence, ascending.
        count: number of sequences.

    Returns:
        Coefficients C (R, D, count) and vectors V (R, N), float64, with
        values[d, n] = sum_r C[r, d, sequence[n]] V[r, n].
        The error is a rounding error, in the dtype of ``values``, relative to the largest vector of the sequence.
    """
    if not torch.isfinite(values).all():  # NaN cannot be factorised, and the results of the passes are NaN as well
        return torch.eye(len(values), dtype=torch.float64)[:, :, None].expand(-1, -1, count), values.double()
    sizes = torch.bincount(sequence, minlength=count)
    within = torch.arange(len(sequence), device=sequence.device) - (sizes.cumsum(0) - sizes)[sequence]
    padded = values.new_zeros(count, len(values), int(sizes.max()), dtype=torch.float64)
    padded[sequence, :, within] = values.t().double()
    _, singular, right = torch.linalg.svd(padded, full_matrices=False)
    rank = max(int((singular > RESIDUE * torch.finfo(values.dtype).eps * singular[:, :1]).sum(1).max()), 1)
    right = right[:, :rank]
    # The coefficients are computed by projection, so that small ones have the same relative accuracy as large ones.
    return (padded @ right.transpose(1, 2)).permute(2, 1, 0), right[sequence, :, within].t()


@dataclass
class SharedGradients:
    """Autograd graphs of a forward pass that was run in two parts.

    Attributes:
        private: attention of the private tokens, with the gradients of the shared keys and values.
        linear: gradients of the LoRA factors.
        shared: (N,) bool for the N scored tokens, True if the token is predicted by a shared token.
        sequence: (M,) index of the sequence of each of the M scored tokens that are predicted by private tokens.
        logprobs: log-probabilities predicted by shared (N − M,) and by private tokens (M,), attached to their graphs.
    """

    private: _Private
    linear: RowSums
    shared: torch.Tensor
    sequence: torch.Tensor
    logprobs: tuple[torch.Tensor, torch.Tensor]

    def products(
        self, vectors: torch.Tensor, parameters: Sequence[torch.Tensor]
    ) -> Iterator[list[torch.Tensor | None]]:
        """Yield the gradients of sum_n vectors[d, n] * logprob[n] for each of the D vectors.

        The graphs are freed after the last gradient.

        Args:
            vectors: (D, N), one entry per scored token.
            parameters: parameters with respect to which the gradients are computed.

        Yields:
            One gradient per parameter; None for a parameter on which the log-probabilities do not depend.
        """
        tree = self.private.tree
        coefficients, basis = row_factors(vectors[:, ~self.shared], self.sequence, int(tree.sequence.max()) + 1)
        for number, (weights, vector) in enumerate(zip(coefficients.to(vectors.dtype), basis.to(vectors.dtype))):
            self.private.weights, self.linear.by_token = weights, weights[:, tree.sequence]
            torch.autograd.grad(
                self.logprobs[1], list(parameters), vector, retain_graph=number < len(basis) - 1, allow_unused=True
            )
        for number, values in enumerate(vectors[:, self.shared]):
            found = self._through_shared(number, values, parameters, keep=number < len(vectors) - 1)
            for position, parameter in enumerate(parameters):
                total, part = self.linear.sums.get(id(parameter)), found[position]
                if total is not None:
                    found[position] = total[number] if part is None else part + total[number]
            yield found

    def _through_shared(
        self, number: int, values: torch.Tensor, parameters: Sequence[torch.Tensor], keep: bool
    ) -> list[torch.Tensor | None]:
        """Run one backward pass through the shared tokens, for the vector with index ``number``.

        The pass starts at the log-probabilities that the shared tokens predict, and at the keys and values of these
        tokens.
        """
        pairs = [(self.logprobs[0], values)]
        for layer, tensors in self.private.shared.layers.items():
            for tensor, sums in zip(tensors, self.private.sums.get(layer, ())):
                pairs.append((tensor, sums[number].unsqueeze(0).to(tensor.dtype)))
        pairs = [(output, value) for output, value in pairs if output.requires_grad]
        if not pairs:
            return [None] * len(parameters)
        outputs, gradients = zip(*pairs)
        return list(torch.autograd.grad(outputs, list(parameters), gradients, retain_graph=keep, allow_unused=True))


def split_logprobs(
    model: Any,
    sequences: Sequence[Sequence[int]],
    starts: Sequence[int],
    *,
    temperature: float = 1.0,
    min_shared: int = MIN_SHARED,
) -> tuple[SharedLogprobs, SharedGradients] | None:
    """Run the forward pass of :func:`~taiji.language.prefix_forward.shared_logprobs` in two parts.

    Returns:
        The log-probabilities and entropies, detached, and the graphs for their gradients. None if this is not
        supported: the device is not a CPU, the attention backend is not *blocks*, parameters other than ordinary LoRA
        factors are trained, the sequences have no shared prefix, or no scored token is predicted by a private token.
    """
    bare = bare_model(model)
    head, layers = head_of(bare), sole_adapters(model)
    if not layers or not head.frozen or bare.device.type != "cpu":
        return None
    tree = PackedTree([s[: max(len(s) - 1, 1)] for s in sequences], min_shared)
    split = SplitTree(tree)
    places, tokens, sizes = scored_places(tree, sequences, starts)
    alone = split.is_private[places]
    if not len(split.shared) or not alone.any():
        return None
    shared, linear = _Shared(), RowSums()
    private = _Private(split, shared)
    first = packed_hidden(model, split.shared, shared)
    if any(best_backend(key, value) != "blocks" for key, value in shared.layers.values()):
        return None
    with gradients_by_row(layers, linear):
        second = packed_hidden(model, split.private, decoding=private)
    parts = []
    for states, chosen in ((first, ~alone), (second, alone)):
        at, rows = np.unique(split.place[places[chosen]], return_inverse=True)
        index = torch.from_numpy(rows)
        found, entropies = token_logprobs(
            states[torch.from_numpy(at)], head, index, torch.from_numpy(tokens[chosen]), temperature
        )
        parts.append((found, entropies[index]))
    kinds = torch.from_numpy(~alone)
    whole = []
    for one, other in zip(*parts):
        both = one.new_empty(len(places))
        both[kinds], both[~kinds] = one.detach(), other.detach()
        whole.append(list(both.split(sizes)))
    sequence = np.repeat(np.arange(len(sizes)), sizes)[alone]
    graphs = SharedGradients(private, linear, kinds, torch.from_numpy(sequence), (parts[0][0], parts[1][0]))
    return SharedLogprobs(*whole), graphs
