"""Graph of a network whose nodes are coloured by their inputs: constants, a table, the request, or the candidates."""

from __future__ import annotations

import inspect
import operator
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn
from torch.fx.graph import CodeGen
from torch.nn import functional

from taiji.core.errors import InputError
from taiji.nn.field_embeddings import Batch
from taiji.nn.per_request import spread, spread_add

CONSTANT, TABLE, REQUEST, CANDIDATE = "constant", "table", "request", "candidate"
ORDER = (CONSTANT, TABLE, REQUEST, CANDIDATE)
UNARY_FUNCTIONS = {
    torch.relu, torch.tanh, torch.sigmoid, torch.exp, torch.abs, torch.square, torch.neg, torch.clamp, functional.relu,
    functional.gelu, functional.silu, functional.elu, functional.leaky_relu, functional.softplus, operator.neg,
}  # fmt: skip
UNARY_METHODS = {
    "relu",
    "tanh",
    "sigmoid",
    "exp",
    "abs",
    "square",
    "neg",
    "clamp",
    "clamp_min",
    "clamp_max",
    "float",
    "double",
}
UNARY_MODULES = (
    nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.ELU, nn.LeakyReLU, nn.Softplus, nn.Identity, nn.modules.dropout._DropoutNd,
)  # fmt: skip
BINARY = {operator.add, operator.sub, operator.mul, operator.truediv, torch.add, torch.sub, torch.mul, torch.div}
NORMALISING = {"layer_norm", "rms_norm", "batch_norm", "group_norm", "softmax", "log_softmax", "normalize"}


@dataclass(frozen=True)
class Sides:
    """Assignment of each network input to the request or to the candidates.

    The original network reads the request's values repeated for each candidate. The *split* inputs hold them once per
    request. An input that is in none of the sets below belongs to the candidates and has one row per candidate.

    Args:
        tiled: request inputs with one row per candidate in the original, and one row per request in the split inputs.
        shared: request inputs with one row per request, or per distinct user, in the original and in the split inputs.
        tables: lists of distinct entries, such as items; inputs of both sides hold indices into them. The split inputs
            have two such lists: ``<name>`` for the candidates, and ``request_<name>`` for the request.
        columns: inputs (B, F) with columns of both sides, mapped to the positions of the request's columns. The split
            inputs are ``<name>`` for the candidates, and ``request_<name>`` for the request.
        like: name of an input with one row per candidate.
        rows: name of a split input with one row per request.
    """

    like: str
    rows: str
    tiled: frozenset[str] = frozenset()
    shared: frozenset[str] = frozenset()
    tables: frozenset[str] = frozenset()
    columns: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def candidate_names(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the names of the candidates' split inputs, for a network with the given inputs."""
        return tuple(dict.fromkeys([*(n for n in names if n not in self.tiled | self.shared), self.like]))

    def split_names(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the names of all split inputs."""
        own = [n for n in names if n in self.tiled | self.shared]
        both = [f"request_{n}" for n in names if n in self.tables or n in self.columns]
        return (*own, *both, *self.candidate_names(names))

    def once_split(self, names: Sequence[str]) -> Sides:
        """Return the sides of the rewritten network, whose inputs are ``split_names(names)``."""
        own = set(self.split_names(names)) - set(self.candidate_names(names))
        return Sides(like=self.like, rows=self.rows, shared=frozenset(own))

    def requests(self, batch: Batch) -> int:
        """Return the number of requests in split inputs."""
        return batch[self.rows].shape[0]

    def widths(self, batch: Batch) -> dict[str, int]:
        """Return the number of columns that each input in ``columns`` originally had, computed from split inputs."""
        return {name: batch[name].shape[1] + len(own) for name, own in self.columns.items()}

    def whole(self, batch: Batch) -> Batch:
        """Join split inputs into the original network's inputs. Both sides must have the same tables."""
        like, out = batch[self.like], {}
        for name, values in batch.items():
            if name in self.tiled:
                out[name] = spread(values, like)
            elif name in self.columns:
                own, request = self.columns[name], spread(batch[f"request_{name}"], like)
                out[name] = values.new_zeros(values.shape[0], values.shape[1] + len(own))
                theirs = [column for column in range(out[name].shape[1]) if column not in set(own)]
                out[name][:, list(own)], out[name][:, theirs] = request, values
            elif name.removeprefix("request_") not in self.tables | set(self.columns) or name in self.tables:
                out[name] = values
        return out

    def first(self, batch: Batch) -> Batch:
        """Return the given split inputs, reduced to the first candidate of each request."""
        rows = batch[self.like].shape[0]
        times = rows // self.requests(batch)
        kept = self.tiled | self.shared | self.tables

        def is_candidates(name: str) -> bool:
            return name not in kept and not name.startswith("request_") and batch[name].shape[0] == rows

        return {name: values[::times] if is_candidates(name) else values for name, values in batch.items()}


_TRACING = threading.RLock()
"""Lock held while a network is traced.

Tracing temporarily replaces methods of ``nn.Module`` for the whole process, so two traces must not overlap.
"""


class _Tracer(fx.Tracer):
    """Tracer that records only the operations of its own thread, because other threads may run networks meanwhile."""

    def __init__(self) -> None:
        super().__init__(autowrap_functions=(spread, spread_add))
        self._thread = threading.get_ident()

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return hasattr(m, "for_columns") or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        if threading.get_ident() != self._thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)


def trace(network: nn.Module, names: Sequence[str]) -> fx.Graph:
    """Return the graph of a network whose only argument is a batch. The graph has one input per name that is read.

    Raises:
        InputError: the control flow of the network depends on values, or an operation cannot be traced.
    """
    argument = next(iter(inspect.signature(network.forward).parameters))
    try:
        with _TRACING, torch.no_grad():
            graph = _Tracer().trace(network, {argument: dict.fromkeys(names, fx.PH)})
    except Exception as error:
        raise InputError(
            "The network cannot be traced.",
            where=type(network).__name__,
            expected="a forward pass whose steps do not depend on values in the batch",
            found=f"{type(error).__name__}: {str(error)[:200]}",
        ) from error
    graph.set_codegen(CodeGen())
    output = next(node for node in reversed(graph.nodes) if node.op == "output")
    if (
        isinstance(output.args[0], (list, tuple)) and len(output.args[0]) == 1
    ):  # the tracer returns a list of outputs; unpack a single output
        output.args = (output.args[0][0],)
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    for node, name in zip(inputs, names, strict=True):
        node.target = name
        node._rename(name)
    drop_unused(graph)
    for node in inputs:
        if not node.users:
            graph.erase_node(node)
    return graph


def drop_unused(graph: fx.Graph) -> None:
    """Remove unused nodes, except inputs. This is safe because a ranking network has no side effects."""
    for node in reversed(list(graph.nodes)):
        if not node.users and node.op not in ("placeholder", "output"):
            graph.erase_node(node)


class _Shapes(fx.Interpreter):
    """Interpreter that records the shape of each node: a tuple, a list of tuples for several tensors, else None."""

    def __init__(self, root: nn.Module, graph: fx.Graph) -> None:
        super().__init__(root, graph=graph)
        self.found: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run a node and record its shape."""
        value = super().run_node(n)
        if isinstance(value, torch.Tensor):
            self.found[n] = tuple(value.shape)
        elif isinstance(value, (list, tuple)) and value and all(isinstance(part, torch.Tensor) for part in value):
            self.found[n] = [tuple(part.shape) for part in value]
        else:
            self.found[n] = None
        return value


def shapes_of(root: nn.Module, graph: fx.Graph, batch: Batch) -> dict[fx.Node, Any]:
    """Run a graph on a batch, and return each node's shape; None for non-tensors."""
    run = _Shapes(root, graph)
    with torch.no_grad():
        run.run(*(batch[node.target] for node in graph.nodes if node.op == "placeholder"))
    return run.found


def is_size(node: fx.Node, shapes: Mapping[fx.Node, Any]) -> bool:
    """Return True if a node is a number or a size rather than a tensor."""
    return shapes[node] is None


def aliases(graph: fx.Graph) -> dict[fx.Node, fx.Node]:
    """Return a map from each output of ``broadcast_tensors`` to the argument that was expanded to it."""
    found = {}
    for node in graph.nodes:
        if node.target is operator.getitem and isinstance(node.args[0], fx.Node):
            source = node.args[0]
            if getattr(source.target, "__name__", "") == "broadcast_tensors":
                arguments = source.args[0] if isinstance(source.args[0], (tuple, list)) else source.args
                found[node] = arguments[node.args[1]]
    return found


def colours(graph: fx.Graph, sides: Sides, shapes: Mapping[fx.Node, Any]) -> dict[fx.Node, str]:
    """Return the colour of each node.

    A node gets the colour of its inputs that comes last in :data:`ORDER`. There are two exceptions: rows that are
    looked up in a table get the colour of the index, and a value that is only expanded keeps its colour.

    Args:
        graph: the graph to colour.
        sides: sides of the graph's inputs.
        shapes: shapes of the graph's nodes for a batch with one candidate per request.

    Raises:
        InputError: a table is used in an operation that is neither row-wise nor a lookup.
    """
    found: dict[fx.Node, str] = {}
    base = aliases(graph)
    for node in graph.nodes:
        if node.op == "placeholder":
            name = node.target
            found[node] = (
                TABLE if name in sides.tables else REQUEST if name in sides.tiled | sides.shared else CANDIDATE
            )
            continue
        if node.target is spread:
            found[node] = found[node.args[0]]
            continue
        if node in base and shapes[base[node]] == shapes[node]:
            found[node] = found[base[node]]
            continue
        inputs = node.all_input_nodes
        if node.target is functional.embedding and len(node.args) > 1 and found[node.args[1]] == TABLE:
            found[node] = found[node.args[0]]
            continue
        known = {found[part] for part in inputs}
        colour = max((*known, CONSTANT), key=ORDER.index)
        if TABLE in known and colour in (REQUEST, CANDIDATE):
            tables = [part for part in inputs if found[part] == TABLE and shapes[part] is not None]
            if tables and node.op != "output":
                raise InputError(
                    "The network uses the list of distinct items in a way other than by looking up rows.",
                    where=f"node {node.name}",
                    expected="an embedding, a function of single rows, or a lookup",
                    found=str(node.target),
                )
        found[node] = colour
    return found
