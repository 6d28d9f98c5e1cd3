"""MaRI (arXiv 2602.23105): compute candidate-independent parts once per request, without changing predictions.

A ranking network is traced as a graph, and its nodes are *coloured*: a value that depends only on the request's
inputs belongs to the request and is the same for all candidates of the request. Other values belong to the candidates.
A linear layer over a concatenation of a request's value u and a candidate's value i is split by columns:
W [u, i] + b = (W_u u + b) + W_i i. The request part W_u u + b has one row per request and is added to the candidates'
rows by broadcasting. In DIN's input [q, k, q − k, q ⊙ k], the difference q − k is absorbed into the matrices of q and
k. The columns of the weights are sorted by side when the network is rewritten, so that no columns have to be gathered
at run time.

A layer that takes statistics over the whole concatenation (a layer normalisation, a softmax) cannot be split, and an
error names the layer. Any other operation that needs the whole concatenation gets it as one tensor. The result is then
still exact, and :attr:`SplitGraph.whole` lists these concatenations. A graph is rewritten until it no longer changes.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import fx, nn

from taiji.models.ranking.graph_building import NotSeparable
from taiji.models.ranking.graph_colours import CANDIDATE, CONSTANT, REQUEST, Sides, drop_unused, shapes_of, trace
from taiji.models.ranking.graph_fusing import fused
from taiji.models.ranking.graph_rewriting import Rewriting
from taiji.nn.field_embeddings import Batch

log = logging.getLogger(__name__)
PASSES = 8
"""Largest number of times that a rewritten graph is rewritten again; usually one or two are enough."""


@dataclass(frozen=True)
class SplitGraph:
    """Network that is split into a request step and a candidate step.

    Attributes:
        joint: graph from all split inputs (:meth:`Sides.split_names`) to the outputs.
        request: graph from the request's inputs to the tensors that the candidates need, each with one row per request.
        candidates: graph from these tensors and the candidates' inputs to the outputs.
        hoisted: names of the tensors that ``request`` passes to ``candidates``.
        request_inputs, candidate_inputs: names of the inputs of the two steps.
        split: names of the linear layers that were split.
        whole: names of the concatenations that some operation needs as one tensor.
    """

    joint: fx.GraphModule
    request: fx.GraphModule
    candidates: fx.GraphModule
    hoisted: tuple[str, ...]
    request_inputs: tuple[str, ...]
    candidate_inputs: tuple[str, ...]
    split: tuple[str, ...]
    whole: tuple[str, ...]

    def encode(self, batch: Batch) -> tuple[torch.Tensor, ...]:
        """Run the request step; return the tensors that the candidate step reads, each with one row per request."""
        return self.request(*(batch[name] for name in self.request_inputs))  # type: ignore[no-any-return]

    def score(self, hoisted: Sequence[torch.Tensor], batch: Batch) -> torch.Tensor:
        """Run the candidate step; return the network's outputs for the candidates, (B, O)."""
        return self.candidates(*hoisted, *(batch[name] for name in self.candidate_inputs))  # type: ignore[no-any-return]


def split_weights(network: nn.Module, example: Batch, sides: Sides, *, tolerance: float = 1e-4) -> SplitGraph:
    """Split a network into a step that runs once per request and a step that runs for the candidates.

    Args:
        network: network in evaluation mode that maps a batch (tensors by name) to a tensor (B, O). Its rows must not
            depend on each other.
        example: inputs in the split form of :class:`Sides`, for at least two requests with several candidates each.
            They determine the shapes, and the outputs of the rewritten graph and of the network are compared on them.
        sides: the side of each input.
        tolerance: largest difference between outputs on the example, relative to the largest output.

    Raises:
        InputError: the network cannot be traced.
        NotSeparable: a layer over a concatenation of both sides cannot be split (the message names its node), or the
            rewritten graph gives different predictions.
    """
    whole = sides.whole(example)
    graph = network.graph if isinstance(network, fx.GraphModule) else trace(network, tuple(whole))
    build = Rewriting(network, graph, example, sides)
    joint = build.joint()
    with torch.no_grad():
        given = (whole[n] for n in build.inputs)
        expected = network(*given) if isinstance(network, fx.GraphModule) else network(whole)
    _compare(network, joint, example, expected, tolerance)
    split, made = list(build.split), set(build.modules)
    for _ in range(PASSES):  # each rewriting may create layers that the next one can split
        try:
            again = Rewriting(joint, joint.graph, example, build.sides.once_split(build.inputs))
            after = again.joint()
            if _operations(after) == _operations(joint):
                break
            _compare(network, after, example, expected, tolerance)
        except NotSeparable:  # keep the previous graph, which gives the same predictions
            break
        split += [name for name in again.split if name not in made]
        made |= set(again.modules)
        build, joint = again, after
    return _parted(joint, build, tuple(split), example)


def _compare(
    network: nn.Module, joint: fx.GraphModule, example: Batch, expected: torch.Tensor, tolerance: float
) -> None:
    """Raise :class:`NotSeparable` if the predictions of a rewritten graph differ from those of the network."""
    with torch.no_grad():
        try:
            found = joint(*(example[node.target] for node in joint.graph.nodes if node.op == "placeholder"))
        except (RuntimeError, IndexError) as error:
            raise NotSeparable(
                "The request side of the network cannot be computed first.",
                where=type(network).__name__,
                found=str(error)[:300],
            ) from error
    if expected.shape != found.shape or not (
        (expected - found).abs().max() <= tolerance * expected.abs().max().clamp_min(1)
    ):
        raise NotSeparable(
            "The predictions of the network change if its request side is computed once.",
            where=type(network).__name__,
            expected="a network whose rows do not depend on each other",
            found=f"outputs that differ by {float((expected - found).abs().max()):.3g}"
            if expected.shape == found.shape
            else f"outputs of shape {tuple(found.shape)} instead of {tuple(expected.shape)}",
        )


def _operations(joint: fx.GraphModule) -> list[tuple[str, str]]:
    """Return the operations of a graph in sorted order, so that graphs can be compared regardless of their order."""
    return sorted((node.op, str(node.target)) for node in joint.graph.nodes)


def _parted(joint: fx.GraphModule, build: Rewriting, split: tuple[str, ...], example: Batch) -> SplitGraph:
    """Split the joint graph into the request step and the candidate step."""
    nodes = list(joint.graph.nodes)
    colour = {node: _joint_colour(node) for node in nodes}
    hoisted = [
        node for node in nodes
        if colour[node] == REQUEST and any(colour[user] == CANDIDATE for user in node.users)
    ]  # fmt: skip
    graphs, inputs = {}, {}
    for side in (REQUEST, CANDIDATE):
        graph, made = fx.Graph(), {}
        if side == CANDIDATE:
            made = {node: graph.placeholder(node.name) for node in hoisted}
        for node in nodes:
            if node.op == "placeholder" and colour[node] == side and node.users and node not in made:
                made[node] = graph.placeholder(node.target)
        inputs[side] = tuple(n.target for n in nodes if n.op == "placeholder" and colour[n] == side and n.users)
        for node in nodes:
            if node.op == "placeholder" or node in made or colour[node] not in (side, CONSTANT):
                continue
            if node.op == "output":
                if side == CANDIDATE:
                    graph.output(made[node.args[0]])
                continue
            made[node] = graph.node_copy(node, made.__getitem__)
        if side == REQUEST:
            graph.output(tuple(made[node] for node in hoisted))
        drop_unused(graph)
        graphs[side] = fx.GraphModule(joint, graph)
    found = SplitGraph(
        joint, graphs[REQUEST], graphs[CANDIDATE], tuple(node.name for node in hoisted), inputs[REQUEST],
        inputs[CANDIDATE], split, tuple(build.whole),
    )  # fmt: skip
    found = _faster(found, [example, build.sides.first(example)])
    requests = build.sides.requests(example)
    with torch.no_grad():
        kept = found.encode(example)
    for name, values in zip(found.hoisted, kept):
        if not isinstance(values, torch.Tensor) or not values.dim() or values.shape[0] != requests:
            raise NotSeparable(
                "A tensor that the request side passes to the candidates does not have one row per request.",
                where=f"node {name}",
                expected=f"{requests} rows",
                found=str(tuple(values.shape)) if isinstance(values, torch.Tensor) else type(values).__name__,
            )
    return found


def _faster(found: SplitGraph, examples: Sequence[Batch]) -> SplitGraph:
    """Return the network with both steps optimised for inference, see :mod:`taiji.models.ranking.graph_fusing`."""
    given: dict[str, list[list[torch.Tensor]]] = {REQUEST: [], CANDIDATE: []}
    with torch.no_grad():
        for batch in examples:
            given[REQUEST].append([batch[name].contiguous() for name in found.request_inputs])
            own = [batch[name].contiguous() for name in found.candidate_inputs]
            given[CANDIDATE].append([*found.encode(batch), *own])
        request, candidates = _alike(found.request, given[REQUEST]), _alike(found.candidates, given[CANDIDATE])
    return replace(found, request=request, candidates=candidates)


def _alike(graph: fx.GraphModule, examples: Sequence[Sequence[torch.Tensor]]) -> fx.GraphModule:
    """Return the optimised graph; the given graph if the optimised one fails or gives other values on an example."""
    try:
        made = fused(graph, examples[0])
        for example in examples:
            pairs = zip(_tensors(graph(*example)), _tensors(made(*example)), strict=True)
            if not all(_close(found, expected) for expected, found in pairs):
                raise RuntimeError("its values differ")
    except (RuntimeError, IndexError, AssertionError, ValueError) as error:
        log.warning("A step of the network could not be optimised: %s", str(error)[:300])
        return graph
    return made


def _close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Return True if two tensors agree up to rounding.

    ``torch.testing`` is not used: it loads SymPy, which takes 30 MB in every process of a service.
    """
    return found.shape == expected.shape and torch.allclose(found, expected, rtol=1e-5, atol=1e-5, equal_nan=True)


def _tensors(outputs: torch.Tensor | Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
    return [outputs] if isinstance(outputs, torch.Tensor) else outputs


def _joint_colour(node: fx.Node) -> str:
    if node.op == "output":
        return CANDIDATE
    if node.op == "get_attr":
        return CONSTANT
    return str(node.meta.get("colour", CANDIDATE))


def flops(graph: fx.Graph, root: nn.Module, batch: Batch) -> int:
    """Return the number of floating-point operations of a graph's linear layers on a batch. Expansions and additions
    are not counted."""
    shapes = shapes_of(root, graph, batch)
    total = 0
    for node in graph.nodes:
        if node.op == "call_module" and isinstance(layer := root.get_submodule(node.target), nn.Linear):
            total += 2 * layer.in_features * math.prod(shapes[node])
    return total
