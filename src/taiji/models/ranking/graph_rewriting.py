"""Rewriting of a network, coloured by ``graph_colours``, so that its request side and candidate side are separate.

Linear layers over both sides are split by columns, and elementwise functions are applied to each side. All other nodes
are copied.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.nn import functional

from taiji.models.ranking.graph_building import (
    Building,
    ColumnChoice,
    Mixed,
    NotSeparable,
    Part,
    Term,
    attribute_of,
)
from taiji.models.ranking.graph_colours import (
    BINARY,
    CANDIDATE,
    NORMALISING,
    REQUEST,
    UNARY_FUNCTIONS,
    UNARY_METHODS,
    UNARY_MODULES,
)
from taiji.nn.per_request import spread_add


class Rewriting(Building):
    """Rules by which operations on a concatenation are applied to its request and candidate parts separately.

    See :func:`taiji.models.ranking.split_weights.split_weights`.
    """

    def _visit(self, node: fx.Node) -> None:
        """Handle an operation of the candidate side.

        Record it as a concatenation, apply it to the parts of its arguments, reject it, or leave it to be copied.
        """
        if node.op == "call_function" and node.target in (torch.cat, torch.concat):
            self._concatenate(node)
            return
        arguments = [arg for arg in node.all_input_nodes if arg in self.mixed]
        if not arguments or self.many[node] is None:  # None: a number or a size, not a tensor
            return
        module = self.network.get_submodule(node.target) if node.op == "call_module" else None  # type: ignore[arg-type]
        mixed = self.mixed[arguments[0]]
        normalising = self._normalised(node, module, mixed)
        if normalising:
            raise NotSeparable(
                "The request side of a network cannot be computed first, because a layer takes statistics over both sides at once.",
                where=f"node {node.name}" + (f", layer {node.target}" if module is not None else ""),
                expected="only linear layers and elementwise functions over a concatenation of request and candidate",
                found=normalising,
                fix="normalise each side before they are joined, or score without splitting",
            )
        if (matrix := self._matrix(node, module)) is not None:
            self._linear(node, mixed, *matrix)
        elif hasattr(module, "for_columns") and mixed.axis == 1:
            self._by_columns(node, mixed, module)
        elif isinstance(module, nn.BatchNorm1d) and mixed.axis == 1:
            self._each(node, mixed, lambda part: _batch_norm(module, part.columns))
        elif self._unary(node, module):
            self._each(node, mixed, None)
        elif node.target in BINARY and len(arguments) == 2 and len(node.args) == 2:
            self._pairwise(node, [self.mixed[arg] for arg in node.args])  # type: ignore[index]
        elif node.target is operator.getitem:
            self._select(node, mixed)
        elif node.target in ("flatten", "view", "reshape", torch.flatten, torch.reshape):
            self._flatten(node, arguments[0], mixed)

    def _concatenate(self, node: fx.Node) -> None:
        tensors = node.args[0]
        axis = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
        assert isinstance(tensors, Sequence) and isinstance(axis, int)
        axis %= len(self.many[node])
        kinds = {self.colour[arg] for arg in tensors} | {REQUEST for arg in tensors if len(self._terms(arg)) > 1}  # type: ignore[index, arg-type]
        if axis == 0 or (REQUEST not in kinds and not any(arg in self.mixed for arg in tensors)):
            return
        parts: list[Part] = []
        start = 0
        for arg in tensors:
            assert isinstance(arg, fx.Node)
            width = self.many[arg][axis]
            if arg in self.mixed and self.mixed[arg].axis == axis:
                parts += [
                    Part(part.node, tuple(start + column for column in part.columns), part.terms)
                    for part in self.mixed[arg].parts
                ]
            elif width:
                parts.append(self._part(arg, tuple(range(start, start + width))))
            start += width
        self.mixed[node] = Mixed(axis, tuple(parts))

    def _normalised(self, node: fx.Node, module: nn.Module | None, mixed: Mixed) -> str:
        """Return the name of the operation if it normalises over both sides, else an empty string."""
        rank = len(self.many[node])
        name = type(module).__name__ if module is not None else getattr(node.target, "__name__", str(node.target))
        if isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
            return name if mixed.axis >= rank - len(module.normalized_shape) else ""
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            return f"{name} in training" if module.training or module.running_mean is None else ""
        if isinstance(module, nn.modules.dropout._DropoutNd):
            return f"{name} in training" if module.training and module.p else ""
        if isinstance(module, (nn.GroupNorm, nn.LocalResponseNorm)):
            return name
        if isinstance(module, (nn.Softmax, nn.LogSoftmax, nn.Softmin)):
            return name if module.dim is None or module.dim % rank == mixed.axis else ""
        if name in NORMALISING:
            along = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
            return name if not isinstance(along, int) or along % rank == mixed.axis else ""
        return ""

    def _unary(self, node: fx.Node, module: nn.Module | None) -> bool:
        if len(node.all_input_nodes) != 1:
            return False
        if module is not None:
            return isinstance(module, UNARY_MODULES)
        return (
            node.target in UNARY_FUNCTIONS
            or node.target in BINARY
            or (node.op == "call_method" and node.target in UNARY_METHODS)
        )

    def _matrix(self, node: fx.Node, module: nn.Module | None) -> tuple[torch.Tensor, torch.Tensor | None] | None:
        """Return weight (out, in) and bias of a linear operation on one input; None for any other operation."""
        if type(module) is nn.Linear:
            return module.weight, module.bias
        others = node.args[1:]
        if node.kwargs.keys() - {"bias"} or not all(
            other is None or (isinstance(other, fx.Node) and other.op == "get_attr")
            for other in [*others, *node.kwargs.values()]
        ):
            return None
        if node.target is functional.linear and others:
            bias = node.kwargs.get("bias", others[1] if len(others) > 1 else None)
            values = [
                attribute_of(self.network, str(other.target)) if isinstance(other, fx.Node) else None
                for other in (others[0], bias)
            ]
            assert values[0] is not None
            return values[0], values[1]
        if node.target in (torch.matmul, operator.matmul) and len(others) == 1:
            assert isinstance(others[0], fx.Node)
            weight = attribute_of(self.network, str(others[0].target))
            return (weight.T, None) if weight.dim() == 2 else None
        return None

    def _linear(self, node: fx.Node, mixed: Mixed, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        """Split a linear layer by sides.

        If the concatenation is along another axis than the layer's inputs, the layer is not split: a module is applied
        to each part, and a function call is left to be copied.
        """
        last = len(self.many[node]) - 1
        if mixed.axis != last:
            if node.op == "call_module":
                self._each(node, mixed, None)
            return
        blocks: dict[fx.Node, torch.Tensor] = {}
        for part in mixed.parts:
            own = weight.detach()[:, list(part.columns)]
            for term in part.terms:
                blocks[term.node] = blocks.get(term.node, 0) + term.sign * own
        groups: dict[tuple[str, tuple[int, ...], int | None], list[fx.Node]] = {}
        for made in blocks:
            groups.setdefault((self._side(made), self.shape[made][:-1], self.tiled.get(made)), []).append(made)
        total: fx.Node | None = None
        for number, ((side, rows, tiled), nodes) in enumerate(
            sorted(groups.items(), key=lambda group: group[0][0] != REQUEST)
        ):
            joined = torch.cat([blocks[made] for made in nodes], dim=1)
            layer = nn.Linear(joined.shape[1], joined.shape[0], bias=bias is not None and not number)
            layer = layer.to(joined.device, joined.dtype).requires_grad_(False)
            with torch.no_grad():
                layer.weight.copy_(joined)
                if layer.bias is not None and bias is not None:
                    layer.bias.copy_(bias)
            name = f"split_{node.name}_{number}"
            self.modules[name] = layer
            shape = (*rows, joined.shape[0])
            source = nodes[0]
            if len(nodes) > 1:
                source = self._call("call_function", torch.cat, (nodes, last), (*rows, joined.shape[1]), side, tiled)
            made = self._call("call_module", name, (source,), shape, side, tiled)
            total = made if total is None else self._sum(total, made)
        assert total is not None
        result = self._spread(total)
        if self.shape[result] != self.many[node]:
            raise NotSeparable(
                "The parts of a linear layer do not add up to its shape.",
                where=f"node {node.name}",
                expected=str(self.many[node]),
                found=str(self.shape[result]),
            )
        self.made[node, CANDIDATE] = result
        self.split.append(node.name)

    def _side(self, made: fx.Node) -> str:
        return REQUEST if made.meta["colour"] == REQUEST else CANDIDATE

    def _sum(self, left: fx.Node, right: fx.Node) -> fx.Node:
        """Return the sum of two nodes. A request's row is added to the rows of all its candidates."""
        sides = (self._side(left), self._side(right))
        shape = np.broadcast_shapes(self._full(left), self._full(right))
        if sides == (REQUEST, REQUEST) and self.tiled.get(left) == self.tiled.get(right):
            own = np.broadcast_shapes(self.shape[left], self.shape[right])
            return self._call("call_function", operator.add, (left, right), own, REQUEST, self.tiled.get(left))
        if (
            sides == (REQUEST, CANDIDATE)
            and self.tiled.get(left) == 0
            and len(self.shape[left]) == len(self.shape[right])
        ):
            return self._call("call_function", spread_add, (left, right), shape, CANDIDATE)
        args = tuple(self._spread(made) if self.tiled.get(made) == 0 else made for made in (left, right))
        return self._call("call_function", operator.add, args, shape, CANDIDATE)

    def _full(self, made: fx.Node) -> tuple[int, ...]:
        shape = list(self.shape[made])
        if (axis := self.tiled.get(made)) is not None:
            shape[axis] *= self.shape[self.placeholders[self.sides.like]][0] // self.sides.requests(self.example)
        return tuple(shape)

    def _each(self, node: fx.Node, mixed: Mixed, make: Callable[[Part], nn.Module] | None) -> None:
        """Apply an operation to each part. With ``make``, apply the module that this function returns for the part."""
        parts = []
        for number, part in enumerate(mixed.parts):
            side, tiled = self._side(part.node), self.tiled.get(part.node)
            shape = list(self.shape[part.node])
            if mixed.axis != len(self.many[node]) - 1:
                shape[-1] = self.many[node][-1]
            if make is not None:
                name = f"columns_{node.name}_{number}"
                self.modules[name] = make(part)
                made = self._call("call_module", name, (part.node,), shape, side, tiled)
            else:
                args = tuple(part.node if isinstance(arg, fx.Node) else arg for arg in node.args)
                kwargs = {key: part.node if isinstance(arg, fx.Node) else arg for key, arg in node.kwargs.items()}
                copied = self.new.create_node(node.op, node.target, args, kwargs)
                made = self._note(copied, side, shape, tiled)
            parts.append(Part(made, part.columns, (Term(made),)))
        self.mixed[node] = Mixed(mixed.axis, tuple(parts))

    def _by_columns(self, node: fx.Node, mixed: Mixed, module: Any) -> None:
        """Apply a column-wise module, such as the encoding of numbers, to each part."""
        parts = []
        for number, part in enumerate(mixed.parts):
            name = f"columns_{node.name}_{number}"
            self.modules[name], columns = module.for_columns(part.columns)
            shape = (self.shape[part.node][0], len(columns), *self.many[node][2:])
            made = self._call(
                "call_module", name, (part.node,), shape, self._side(part.node), self.tiled.get(part.node)
            )
            parts.append(Part(made, tuple(columns), (Term(made),)))
        self.mixed[node] = Mixed(1, tuple(parts))

    def _pairwise(self, node: fx.Node, both: Sequence[Mixed]) -> None:
        """Apply an operation part by part to two concatenations with the same layout."""
        left, right = both
        layouts = [[(part.columns, self._side(part.node), self.shape[part.node]) for part in m.parts] for m in both]
        if left.axis != right.axis or layouts[0] != layouts[1]:
            return
        parts = []
        for one, other in zip(left.parts, right.parts):
            made = self._call(
                node.op,
                node.target,
                (one.node, other.node),
                self.shape[one.node],
                self._side(one.node),
                self.tiled.get(one.node),
            )
            parts.append(Part(made, one.columns, (Term(made),)))
        self.mixed[node] = Mixed(left.axis, tuple(parts))

    def _select(self, node: fx.Node, mixed: Mixed) -> None:
        """Take a slice of columns, x[:, a:b] or x[..., a:b]."""
        index = node.args[1]
        entries = index if isinstance(index, tuple) else (index,)
        if entries and entries[0] is Ellipsis:
            entries = (slice(None),) * (len(self.many[node]) - len(entries) + 1) + entries[1:]
        plain = all(
            isinstance(e, slice) and not any(isinstance(v, fx.Node) for v in (e.start, e.stop, e.step)) for e in entries
        )
        others = [entry for place, entry in enumerate(entries) if place != mixed.axis]
        if not plain or any(entry != slice(None) for entry in others) or mixed.axis >= len(entries):
            return
        (source,) = node.all_input_nodes
        chosen_slice = entries[mixed.axis]
        assert isinstance(chosen_slice, slice)
        kept: list[int] = list(range(self.many[source][mixed.axis]))[chosen_slice]
        place = {column: number for number, column in enumerate(kept)}
        parts = []
        for number, part in enumerate(mixed.parts):
            chosen = [at for at, column in enumerate(part.columns) if column in place]
            if not chosen:
                continue
            made = part.node
            terms = part.terms
            if len(chosen) < len(part.columns):
                name = f"columns_{node.name}_{number}"
                self.modules[name] = ColumnChoice(np.array(chosen), mixed.axis)
                shape = list(self.shape[made])
                shape[mixed.axis] = len(chosen)
                made = self._call("call_module", name, (made,), shape, self._side(made), self.tiled.get(made))
                terms = (Term(made),)
            parts.append(Part(made, tuple(place[part.columns[at]] for at in chosen), terms))
        if parts:
            self.mixed[node] = Mixed(mixed.axis, tuple(parts))

    def _flatten(self, node: fx.Node, source: fx.Node, mixed: Mixed) -> None:
        """Handle a reshape from (B, n, w) to (B, n * w)."""
        before, after = self.many[source], self.many[node]
        if len(after) != 2 or after[0] != before[0] or len(before) < 3 or any(len(p.terms) > 1 for p in mixed.parts):
            return
        places = np.arange(int(np.prod(before[1:]))).reshape(before[1:])
        parts = []
        for part in mixed.parts:
            columns = np.take(places, part.columns, axis=mixed.axis - 1).ravel()
            rows = self.shape[part.node][0]
            made = self._call(
                "call_method", "flatten", (part.node, 1), (rows, len(columns)), self._side(part.node), self.tiled.get(part.node)
            )  # fmt: skip
            parts.append(Part(made, tuple(int(column) for column in columns), (Term(made),)))
        self.mixed[node] = Mixed(1, tuple(parts))


def _batch_norm(module: nn.BatchNorm1d, columns: Sequence[int]) -> nn.BatchNorm1d:
    """Return a batch normalisation of some of the columns, with their weights and running statistics."""
    made = nn.BatchNorm1d(len(columns), eps=module.eps, affine=module.affine)
    for name, value in module.state_dict().items():
        parameter = made.get_parameter(name) if name in ("weight", "bias") else made.get_buffer(name)
        parameter.data = value.detach().clone() if value.dim() == 0 else value.detach()[list(columns)].clone()
    return made.eval()
