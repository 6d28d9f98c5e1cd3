"""Construction of the graph of a split network; see :mod:`taiji.models.ranking.split_weights`.

Each value of the new graph has one row per request or one row per candidate, as the operations that read it require. A
concatenation of request values and candidate values is kept as separate parts for as long as possible.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from taiji.core.errors import InputError
from taiji.models.ranking.graph_colours import (
    BINARY,
    CANDIDATE,
    CONSTANT,
    REQUEST,
    Sides,
    aliases,
    colours,
    drop_unused,
    is_size,
    shapes_of,
)
from taiji.nn.field_embeddings import Batch
from taiji.nn.per_request import spread


class NotSeparable(InputError):
    """Error: the request side of a network cannot be computed before the candidate side.

    The message names the node of the graph, or the network if there is no single node.
    """


ADDING = {operator.add: 1.0, operator.sub: -1.0, torch.add: 1.0, torch.sub: -1.0}


@dataclass(frozen=True)
class Term:
    """Node of the new graph, and its sign (1 or −1) in a sum that a linear layer reads."""

    node: fx.Node
    sign: float = 1.0


@dataclass(frozen=True)
class Part:
    """Columns of a concatenation.

    Attributes:
        node: node of the new graph that holds the columns.
        columns: positions of the columns in the concatenation.
        terms: nodes whose signed sum, expanded where necessary, is ``node``. A linear layer reads these nodes instead
            of ``node``.
    """

    node: fx.Node
    columns: tuple[int, ...]
    terms: tuple[Term, ...]


@dataclass(frozen=True)
class Mixed:
    """Concatenation along ``axis`` of parts with one row per request or one row per candidate, all in the new graph."""

    axis: int
    parts: tuple[Part, ...]


@dataclass
class Building:
    """Construction of the new graph of a network, for :func:`taiji.models.ranking.split_weights.split_weights`.

    The new graph is called the *joint* graph, because it contains the operations of both sides, request and candidate.
    """

    network: nn.Module
    graph: fx.Graph
    example: Batch
    sides: Sides
    new: fx.Graph = field(default_factory=fx.Graph)
    modules: dict[str, nn.Module] = field(default_factory=dict)
    split: list[str] = field(default_factory=list)
    whole: list[str] = field(default_factory=list)
    """Names of the concatenations that some operation needs as one tensor."""

    def __post_init__(self) -> None:
        self.inputs = tuple(node.target for node in self.graph.nodes if node.op == "placeholder")
        # Shapes of the original values with all candidates of the example, and with one candidate per request.
        self.many = shapes_of(self.network, self.graph, self.sides.whole(self.example))
        self.one = shapes_of(self.network, self.graph, self.sides.whole(self.sides.first(self.example)))
        self.colour = colours(self.graph, self.sides, self.one)
        self.base = aliases(self.graph)
        self.loose: set[fx.Node] = set()
        """Nodes whose shape depends on the request, but whose values do not. Each side has its own copy of them."""
        for node in self.graph.nodes:
            if self.colour[node] == REQUEST and node.all_input_nodes and not is_size(node, self.many):
                tensors = [part for part in node.all_input_nodes if not is_size(part, self.many)]
                if all(self.colour[part] == CONSTANT or part in self.loose for part in tensors):
                    self.loose.add(node)
        self.mixed: dict[fx.Node, Mixed] = {}
        self.made: dict[tuple[fx.Node, str], fx.Node] = {}
        self.placeholders: dict[str, fx.Node] = {}
        self.shape: dict[fx.Node, tuple[int, ...]] = {}
        """Shape of each node of the new graph on the example batch."""
        self.tiled: dict[fx.Node, int] = {}
        """Axis of a request node along which the original network has one row per candidate.

        In the node itself, this axis has one row per request if it is axis 0, and otherwise size 1.
        """
        self.spreads: dict[fx.Node, fx.Node] = {}

    def joint(self) -> fx.GraphModule:
        """Build the joint graph, and return it as a module."""
        for name in self.sides.split_names(self.inputs):
            node = self.new.placeholder(name)
            node.target = name
            request = name not in self.sides.candidate_names(self.inputs)
            self.placeholders[name] = self._note(node, REQUEST if request else CANDIDATE, self.example[name].shape)
        output = None
        for node in self.graph.nodes:
            if node.op == "output":
                output = node
            elif node.op == "placeholder" and node.target in self.sides.columns:
                self.mixed[node] = self._columns(node.target)
            elif node.op not in ("placeholder", "get_attr") and self.colour[node] in (REQUEST, CANDIDATE):
                if self.colour[node] == CANDIDATE:
                    self._visit(node)
                if node not in self.mixed and not is_size(node, self.many):
                    self._get(node, self.colour[node])  # in graph order, which avoids deep recursion
        assert output is not None
        (result,) = output.args
        if not isinstance(result, fx.Node):
            raise NotSeparable(
                "The network returns more than one tensor.", where=type(self.network).__name__, found=str(result)
            )
        self.new.output(self._get(result, CANDIDATE))
        for node in self.new.nodes:
            if node.target is operator.pos:
                node.replace_all_uses_with(node.args[0])
        drop_unused(self.new)
        self.new.lint()
        alive = set(self.new.nodes)
        self.whole = [node.name for node in self.mixed if self.made.get((node, CANDIDATE)) in alive]
        root = nn.Module()
        for name, module in {**dict(self.network.named_modules()), **self.modules}.items():
            if any(node.op == "call_module" and node.target == name for node in self.new.nodes):
                _place(root, name, module)
        for node in self.new.nodes:
            if node.op == "get_attr":
                _place(root, node.target, attribute_of(self.network, node.target))
        return fx.GraphModule(root, self.new)

    # Nodes of the new graph.

    def _note(self, node: fx.Node, colour: str, shape: Sequence[int] | None, tiled: int | None = None) -> fx.Node:
        node.meta["colour"] = colour
        if shape is not None:
            self.shape[node] = tuple(shape)
        if tiled is not None:
            self.tiled[node] = tiled
        return node

    def _call(
        self, kind: str, target: Any, args: tuple[Any, ...], shape: Sequence[int], colour: str, tiled: int | None = None
    ) -> fx.Node:
        return self._note(self.new.create_node(kind, target, args), colour, shape, tiled)

    def _get(self, node: fx.Node, context: str) -> fx.Node:
        """Return the new graph's node for ``node``, in the shape that operations on the side ``context`` need."""
        colour = self.colour[node]
        if context == CANDIDATE and colour == REQUEST and not is_size(node, self.many) and node not in self.loose:
            made = self._spread(self._get(node, REQUEST))
            if node not in self.base or self.shape[made] == self.many[node]:
                return made
        if colour == CANDIDATE:
            context = CANDIDATE
        key = (node, context)
        if key not in self.made:
            if node in self.mixed:
                self.made[key] = self._joined(node)
            else:
                self.made[key] = self._copy(node, context)
        return self.made[key]

    def _spread(self, made: fx.Node) -> fx.Node:
        """Expand a request node to one row per candidate if the original network has one row per candidate."""
        axis = self.tiled.get(made)
        if axis is None:
            return made
        if made not in self.spreads:
            like = self.placeholders[self.sides.like]
            shape = list(self.shape[made])
            shape[axis] *= self.shape[like][0] // self.sides.requests(self.example)
            args = (made, like) if axis == 0 else (made, like, axis)
            self.spreads[made] = self._call("call_function", spread, args, shape, CANDIDATE)
        return self.spreads[made]

    def _copy(self, node: fx.Node, context: str) -> fx.Node:
        """Copy a node, with its arguments in the shape that the side ``context`` needs."""
        if node.op == "placeholder":
            name = str(node.target)
            if context == REQUEST and name in self.sides.tables:
                name = f"request_{name}"
            made = self.placeholders[name]
            if self.colour[node] == REQUEST and name in self.sides.tiled:
                self.tiled[made] = 0
            return made
        base = self.base.get(node)
        if base is not None and context == REQUEST:
            return self._get(base, context)
        if node.target is spread and context == REQUEST:
            marked = self.new.call_function(
                operator.pos, (self._get(node.all_input_nodes[0], REQUEST),)
            )  # a marker, which ``joint`` removes
            return self._note(marked, REQUEST, self.one[node], self._axis(node))
        if node.op == "get_attr":
            made = self.new.create_node("get_attr", node.target)
            return self._note(made, CONSTANT, self.many[node])

        def argument(old: fx.Node) -> fx.Node:
            if node.target in BINARY and old in self.base and self._broadcasts(node):
                return self._get(self.base[old], context)
            return self._get(old, context)

        made = self.new.node_copy(node, argument)
        made.meta.clear()
        shape = self.many[node] if context == CANDIDATE else self.one[node]
        return self._note(
            made, context, shape if isinstance(shape, tuple) else None, self._axis(node) if context == REQUEST else None
        )

    def _broadcasts(self, node: fx.Node) -> bool:
        """Return True if an operation gives the same shape when its arguments are not expanded first."""
        found = [self.many[self.base.get(arg, arg)] if isinstance(arg, fx.Node) else () for arg in node.args]
        return np.broadcast_shapes(*found) == self.many[node]

    def _axis(self, node: fx.Node) -> int | None:
        """Return the axis of a node's value whose size grows with the number of candidates; None if there is none."""
        many, one = self.many[node], self.one[node]
        if not isinstance(many, tuple) or not isinstance(one, tuple) or many == one:
            return None
        found = [axis for axis, (m, o) in enumerate(zip(many, one)) if m != o]
        times = self.shape[self.placeholders[self.sides.like]][0] // self.sides.requests(self.example)
        axis = found[0] if found else 0
        if len(many) != len(one) or len(found) != 1 or many[axis] != times * one[axis] or (axis and one[axis] != 1):
            raise NotSeparable(
                "The shape of a request's value depends on the candidates in an unknown way.",
                where=f"node {node.name}",
                expected="one axis with one row per candidate",
                found=f"{many} with {times} candidates per request, {one} with one",
            )
        return axis

    # Concatenations.

    def _columns(self, name: str) -> Mixed:
        own = self.sides.columns[name]
        total = self.sides.widths(self.example)[name]
        theirs = tuple(column for column in range(total) if column not in set(own))
        request, candidates = self.placeholders[f"request_{name}"], self.placeholders[name]
        self.tiled[request] = 0
        both = ((request, own), (candidates, theirs))
        return Mixed(1, tuple(Part(made, columns, (Term(made),)) for made, columns in both if columns))

    def _joined(self, node: fx.Node) -> fx.Node:
        """Return a concatenation as one tensor, with its columns in their original order."""
        mixed = self.mixed[node]
        tensors = [self._widened(part, node, mixed.axis) for part in mixed.parts]
        order = [column for part in mixed.parts for column in part.columns]
        shape = self.many[node]
        made = self._call("call_function", torch.cat, (tensors, mixed.axis), shape, CANDIDATE)
        made._rename(node.name)  # reports then show the original name, even if the graph is rewritten again
        if order != sorted(order):
            name = f"order_{node.name}"
            self.modules[name] = ColumnChoice(np.argsort(order), mixed.axis)
            made = self._call("call_module", name, (made,), shape, CANDIDATE)
        return made

    def _widened(self, part: Part, node: fx.Node, axis: int) -> fx.Node:
        """Expand a part to the shape that it has in the concatenation."""
        made = self._spread(part.node) if part.node.meta["colour"] == REQUEST else part.node
        shape = list(self.many[node])
        shape[axis] = len(part.columns)
        if self.shape[made] != tuple(shape):
            like = self.placeholders[self.sides.like]
            raise NotSeparable(
                "A part of a concatenation does not have the shape that the concatenation needs.",
                where=f"node {node.name}",
                expected=str(tuple(shape)),
                found=f"{self.shape[made]}; the rows of input {like.name} are the candidates",
            )
        return made

    def _part(self, old: fx.Node, columns: tuple[int, ...]) -> Part:
        """Return an argument of a concatenation as a part.

        If the argument is a sum or difference of a request value and a candidate value, the two values are its terms.
        """
        terms = self._terms(old)
        if len(terms) > 1:
            return Part(self._get(old, CANDIDATE), columns, terms)
        node = self._get(self.base.get(old, old), self._context(self.base.get(old, old)))
        if self._fits(node, old):
            return Part(node, columns, (Term(node),))
        return Part(self._get(old, CANDIDATE), columns, (Term(node),))

    def _fits(self, node: fx.Node, old: fx.Node) -> bool:
        shape = list(self.shape[node])
        if (axis := self.tiled.get(node)) is not None:
            shape[axis] *= self.shape[self.placeholders[self.sides.like]][0] // self.sides.requests(self.example)
        return tuple(shape) == self.many[old]

    def _terms(self, old: fx.Node) -> tuple[Term, ...]:
        old = self.base.get(old, old)
        if old.op == "call_function" and old.target in ADDING and self.colour[old] == CANDIDATE:
            left, right = (self.base.get(arg, arg) if isinstance(arg, fx.Node) else None for arg in old.args[:2])
            if left is not None and right is not None and not old.kwargs:
                sides = {self.colour[left], self.colour[right]}
                width = self.many[old][-1]
                alike = all(self.many[part][-1:] == (width,) for part in (left, right))
                if sides == {REQUEST, CANDIDATE} and alike:
                    nodes = [self._get(part, self._context(part)) for part in (left, right)]
                    return Term(nodes[0]), Term(nodes[1], ADDING[old.target])
        return (Term(self._get(old, self._context(old))),)

    def _context(self, old: fx.Node) -> str:
        return REQUEST if self.colour[old] == REQUEST else CANDIDATE

    def _visit(self, node: fx.Node) -> None:
        """Handle an operation of the candidate side before it is copied. The base class does nothing."""


class ColumnChoice(nn.Module):
    """Module that selects or reorders the columns of a tensor."""

    index: torch.Tensor

    def __init__(self, index: Sequence[int] | np.ndarray[Any, Any], axis: int) -> None:
        super().__init__()
        self.axis = axis
        self.register_buffer("index", torch.as_tensor(np.asarray(index), dtype=torch.int64))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return the selected columns."""
        return values.index_select(self.axis, self.index)


def attribute_of(module: nn.Module, path: str) -> torch.Tensor:
    """Return the parameter or buffer at a dotted path in a module."""
    owner, _, name = path.rpartition(".")
    found: torch.Tensor = getattr(module.get_submodule(owner), name)
    return found


def _place(root: nn.Module, path: str, value: nn.Module | torch.Tensor) -> None:
    """Store a module or tensor at a dotted path in a tree of modules, whose missing nodes are created."""
    *owners, name = path.split(".")
    for owner in owners:
        if not hasattr(root, owner):
            root.add_module(owner, nn.Module())
        root = root.get_submodule(owner)
    if isinstance(value, nn.Module):
        root.add_module(name, value)
    elif isinstance(value, nn.Parameter):
        root.register_parameter(name, value)
    else:
        root.register_buffer(name, value)
