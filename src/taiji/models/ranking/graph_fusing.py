"""Optimisation of a graph for inference. Repeated operations run once, and results overwrite values no longer needed.

All values stay the same to the last bit, with one exception: linear layers with the same input are joined, and the
wider matrix product may sum in a different order. A graph that already contains an in-place operation is not changed.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from taiji.nn.per_request import add_spread_, spread, spread_add


def columns_of(outputs: torch.Tensor, start: int, size: int) -> torch.Tensor:
    """Return the output of one of several joined layers: ``size`` columns of the joint output, from ``start`` on."""
    return outputs.narrow(-1, start, size)


def fill_masked_(values: torch.Tensor, mask: torch.Tensor, value: float) -> torch.Tensor:
    """Return ``values.masked_fill_(mask, value)``.

    On a CPU, nothing is written if a broadcast mask has no True entry, which is common for padding masks.
    """
    if mask.device.type == "cpu" and mask.numel() < values.numel() and not mask.any():
        return values
    return values.masked_fill_(mask, value)


def sum_few(values: torch.Tensor, dim: int) -> torch.Tensor:
    """Return ``values.sum(dim)``.

    On a CPU, up to :data:`FEW` summands are added as whole tensors. This is faster and keeps PyTorch's order of
    addition.
    """
    if (
        not 1 < values.shape[dim] <= FEW
        or values.device.type != "cpu"
        or values.dtype not in (torch.float32, torch.float64)
    ):
        return values.sum(dim)
    first, second, *others = values.unbind(dim)
    total = first + second
    for other in others:
        total += other
    return total


def mean_few(values: torch.Tensor, dim: int) -> torch.Tensor:
    """Return ``values.mean(dim)``, see :func:`sum_few`."""
    return sum_few(values, dim).div_(values.shape[dim])


FEW = 4
"""Largest number of summands that :func:`sum_few` adds as whole tensors."""
SAME_FUNCTIONS = {
    torch.cat, torch.bmm, torch.exp, torch.log, functional.embedding, functional.linear, operator.getitem, operator.add, operator.sub,
    operator.mul, operator.truediv, operator.neg, getattr, spread, spread_add,
}  # fmt: skip
"""Deterministic functions, which run only once for the same arguments. Other functions may draw random numbers."""
SAME_METHODS = {
    "view",
    "reshape",
    "flatten",
    "transpose",
    "unsqueeze",
    "sum",
    "mean",
    "amax",
    "clamp_min",
    "masked_fill",
    "size",
}
SAME_MODULES = (nn.Linear, nn.Embedding, nn.ReLU, nn.LayerNorm)
VIEWS = {"view", "reshape", "flatten", "transpose", "unsqueeze", "contiguous"}
"""Methods whose result shares the memory of their argument, or is a copy of it."""
NEW_FUNCTIONS = {
    torch.cat, torch.bmm, torch.exp, torch.log, functional.embedding, functional.linear, operator.add, operator.sub, operator.mul,
    operator.truediv, operator.neg, spread_add, columns_of, sum_few, mean_few,
}  # fmt: skip
"""Functions whose result is a new tensor, or columns of a new tensor that nothing else reads."""
FEWER = {"sum": sum_few, "mean": mean_few}
NEW_METHODS = {"sum", "mean", "amax", "clamp_min", "masked_fill"}
IN_PLACE: dict[Any, str] = {
    operator.add: "add_", operator.sub: "sub_", operator.mul: "mul_", operator.truediv: "div_", operator.neg: "neg_",
    torch.exp: "exp_", torch.log: "log_", "clamp_min": "clamp_min_",
}  # fmt: skip
"""In-place method of each operation; it writes the result into the first argument."""
Shapes = dict[fx.Node, tuple[tuple[int, ...], torch.dtype] | None]


def fused(graph: fx.GraphModule, example: Sequence[torch.Tensor]) -> fx.GraphModule:
    """Return a graph optimised for inference; the given graph if it already contains an in-place operation.

    Args:
        graph: graph in evaluation mode; it is not changed.
        example: inputs of the graph, from which the shapes are read.
    """
    copied = fx.Graph()
    copied.output(copied.graph_copy(graph.graph, {}))
    made = fx.GraphModule(graph, copied)
    if any(_changes_something(node, made) for node in made.graph.nodes):
        return graph
    for node in list(made.graph.nodes):
        if node.op == "call_method" and node.target == "detach":  # there is no gradient to cut off
            node.replace_all_uses_with(node.args[0])
            made.graph.erase_node(node)
    _merge_equal(made)
    _sum_few(made)
    _flatten_concatenations(made.graph)
    _join_layers(made)
    _overwrite(made, _facts(made, example))
    made.graph.lint()
    made.recompile()
    return made


def _changes_something(node: fx.Node, root: fx.GraphModule) -> bool:
    """Return True if an operation changes a tensor in place, judging by its name, its arguments and its module."""
    if node.op in ("placeholder", "output", "get_attr"):
        return False
    if node.op == "call_module":
        module = root.get_submodule(str(node.target))
        return any(getattr(part, "inplace", False) for part in module.modules())
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    setting = node.target in (operator.setitem, operator.iadd, operator.isub, operator.imul, operator.itruediv)
    return (
        setting
        or (name.endswith("_") and not name.endswith("__"))
        or bool(node.kwargs.get("inplace"))
        or "out" in node.kwargs
    )


def _merge_equal(made: fx.GraphModule) -> None:
    """Compute an operation once if it is repeated with the same arguments."""
    known: dict[Any, fx.Node] = {}
    for node in list(made.graph.nodes):
        if not _repeatable(node, made):
            continue
        key = (node.op, node.target, repr(node.args), repr(node.kwargs))
        if key in known:
            node.replace_all_uses_with(known[key])
            made.graph.erase_node(node)
        else:
            known[key] = node


def _repeatable(node: fx.Node, root: fx.GraphModule) -> bool:
    if node.op == "call_function":
        return node.target in SAME_FUNCTIONS
    if node.op == "call_method":
        return node.target in SAME_METHODS
    if node.op == "call_module":
        return isinstance(root.get_submodule(str(node.target)), SAME_MODULES)
    return node.op == "get_attr"


def _sum_few(made: fx.GraphModule) -> None:
    """Replace sums and means along one axis by :func:`sum_few` and :func:`mean_few`.

    PyTorch's own sum is slow along a short inner axis, because it adds one number at a time.
    """
    for node in list(made.graph.nodes):
        axes = [*node.args[1:], *node.kwargs.values()]
        named = not node.kwargs or set(node.kwargs) == {"dim"}
        if node.op == "call_method" and node.target in FEWER and named and len(axes) == 1 and type(axes[0]) is int:
            with made.graph.inserting_before(node):
                found = made.graph.call_function(FEWER[str(node.target)], (node.args[0], axes[0]))
            node.replace_all_uses_with(found)
            made.graph.erase_node(node)


def _flatten_concatenations(graph: fx.Graph) -> None:
    """Replace an inner concatenation by its parts if its only use is an outer concatenation along the same axis."""
    for node in list(graph.nodes):
        if (axis := _axis_of(node)) is None or len(node.users) != 1:
            continue
        (user,) = node.users
        if _axis_of(user) == axis and axis >= 0 and list(user.args[0]).count(node) == 1:
            parts = [inner for part in user.args[0] for inner in (node.args[0] if part is node else [part])]
            user.args, user.kwargs = (parts, axis), {}
            graph.erase_node(node)


def _axis_of(node: fx.Node) -> int | None:
    """Return the axis of a concatenation; None for other operations."""
    if node.op != "call_function" or node.target is not torch.cat or not isinstance(node.args[0], (list, tuple)):
        return None
    axis = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
    return axis if isinstance(axis, int) else None


def _join_layers(made: fx.GraphModule) -> None:
    """Replace linear layers with the same input by one joint layer, and select each layer's columns of its output."""
    groups: dict[tuple[fx.Node, bool], list[fx.Node]] = {}
    for node in made.graph.nodes:
        # Methods such as view fail on columns of a wider tensor.
        reshaped = any(user.op == "call_method" for user in node.users)
        if node.op == "call_module" and type(made.get_submodule(node.target)) is nn.Linear and not reshaped:
            biased = made.get_submodule(node.target).bias is not None
            groups.setdefault((node.args[0], biased), []).append(node)
    for number, ((source, biased), nodes) in enumerate(groups.items()):
        if len(nodes) < 2:
            continue
        layers = [made.get_submodule(str(node.target)) for node in nodes]
        sizes = [int(layer.out_features) for layer in layers]  # type: ignore[arg-type]
        weight = torch.cat([layer.weight.detach() for layer in layers])  # type: ignore[operator, union-attr]
        joined = nn.Linear(weight.shape[1], weight.shape[0], bias=biased, device="meta").requires_grad_(False)
        joined.weight = nn.Parameter(weight, requires_grad=False)
        if biased:
            bias = torch.cat([layer.bias.detach() for layer in layers])  # type: ignore[operator, union-attr]
            joined.bias = nn.Parameter(bias, requires_grad=False)
        made.add_module(f"joined_{number}", joined)
        with made.graph.inserting_before(nodes[0]):
            whole = made.graph.call_module(f"joined_{number}", (source,))
            start = 0
            for node, size in zip(nodes, sizes):
                part = made.graph.call_function(columns_of, (whole, start, size))
                node.replace_all_uses_with(part)
                start += size
        for node in nodes:
            made.graph.erase_node(node)


class _Facts(fx.Interpreter):
    """Interpreter that runs a graph and records the shape and type of each node; None for non-tensors."""

    def __init__(self, root: fx.GraphModule) -> None:
        super().__init__(root)
        self.found: Shapes = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run a node and record its shape and type."""
        value = super().run_node(n)
        self.found[n] = (tuple(value.shape), value.dtype) if isinstance(value, torch.Tensor) else None
        return value


def _facts(made: fx.GraphModule, example: Sequence[torch.Tensor]) -> Shapes:
    run = _Facts(made)
    with torch.no_grad():
        run.run(*example)
    return run.found


class _Memory:
    """Record of which node created the memory of each value, and of which operation is the last to read this memory."""

    def __init__(self, made: fx.GraphModule, facts: Shapes) -> None:
        self.order = {node: place for place, node in enumerate(made.graph.nodes)}
        self.owner: dict[fx.Node, fx.Node | None] = {}
        """Node that created the memory of each value.

        None if the memory may be used elsewhere, as for inputs, weights and results of unknown operations.
        """
        shared: set[fx.Node | None] = set()
        for node in made.graph.nodes:
            kind = _kind(node, made)
            self.owner[node] = node if kind == "new" else self.owner[node.args[0]] if kind == "view" else None
            if kind == "unknown" and facts[node] is not None and node.op != "output":
                shared |= {self.owner[part] for part in node.all_input_nodes}  # the result may be one of the inputs
        self.owner = {node: None if owner in shared else owner for node, owner in self.owner.items()}
        self.last: dict[fx.Node, int] = {}
        for node, owner in self.owner.items():
            if owner is not None:
                self.last[owner] = max([self.last.get(owner, 0), *(self.order[user] for user in node.users)])

    def is_free(self, target: fx.Node, node: fx.Node) -> bool:
        """Return True if the operation ``node`` may overwrite its input ``target``."""
        owner = self.owner[target]
        others = [part for part in node.all_input_nodes if part is not target]
        alone = all(self.owner[part] is not owner for part in others)
        return owner is not None and self.last[owner] == self.order[node] and alone

    def replace(self, node: fx.Node, written: fx.Node, target: fx.Node) -> None:
        """Record that ``written`` has replaced ``node`` and writes its result into the memory of ``target``."""
        owner = self.owner[target]
        assert owner is not None
        self.order[written] = self.order.pop(node)
        self.owner[written] = self.owner.pop(node)
        if self.owner[written] is node:
            self.last[owner] = max(self.last[owner], self.last.pop(node))
            self.owner = {part: owner if found is node else found for part, found in self.owner.items()}
        else:  # the result may be used elsewhere, so nothing may overwrite it
            self.owner = {part: None if found is owner else found for part, found in self.owner.items()}


def _overwrite(made: fx.GraphModule, facts: Shapes) -> None:
    """Let operations write their results into an argument.

    The argument must be a new tensor of the same shape and type that is not read afterwards.
    """
    memory = _Memory(made, facts)
    for node in list(made.graph.nodes):
        target = node.args[1] if node.target is spread_add else node.args[0] if node.args else None
        if not isinstance(target, fx.Node) or facts[node] is None or facts[target] != facts[node]:
            continue
        if not memory.is_free(target, node):
            continue
        with made.graph.inserting_before(node):
            if node.target is spread_add:
                written = made.graph.call_function(add_spread_, (target, node.args[0]))
            elif node.op == "call_method" and node.target == "masked_fill" and len(node.args) == 3:
                written = made.graph.call_function(fill_masked_, node.args, node.kwargs)
            elif node.target in IN_PLACE:
                written = made.graph.call_method(IN_PLACE[node.target], node.args, node.kwargs)
            elif node.op == "call_module" and type(made.get_submodule(str(node.target))) is nn.ReLU:
                written = made.graph.call_method("relu_", node.args)
            else:
                continue
        node.replace_all_uses_with(written)
        memory.replace(node, written, target)
        facts[written] = facts[node]
        made.graph.erase_node(node)


def _kind(node: fx.Node, root: fx.GraphModule) -> str:
    """Return the kind of an operation's result: ``new`` tensor, ``view`` of the first argument, or ``unknown``."""
    if node.op == "call_method":
        return "view" if node.target in VIEWS else "new" if node.target in NEW_METHODS else "unknown"
    if node.op == "call_function":
        return "new" if node.target in NEW_FUNCTIONS else "unknown"
    if node.op == "call_module":
        return "new" if type(root.get_submodule(str(node.target))) in (nn.Linear, nn.ReLU, nn.Embedding) else "unknown"
    return "unknown"
