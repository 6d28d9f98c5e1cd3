"""Export of a :class:`DeviceGate` as a small ONNX graph, which keeps the next video or replaces it by a cached one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from taiji.core.artifacts import atomic_file
from taiji.core.errors import ConfigError
from taiji.core.optional import needs
from taiji.models.rerank.device import DeviceGate

if TYPE_CHECKING:
    from lightgbm import Booster

Array = NDArray[Any]
LARGEST = 2**20
"""Largest size of an exported file, in bytes."""
OPSET, TREE_OPSET, IR = 17, 3, 8


def export_device_gate(gate: DeviceGate, path: str | Path) -> int:
    """Write the graph and return its size in bytes.

    The pool consists of the P videos cached on the device. If it is empty, the video is kept.

    Inputs of the graph:
        * ``video`` (1, F) and ``pool`` (P, F): float32 features from :meth:`DeviceGate.features`.
        * ``hours`` (P,): hours since each video of the pool was loaded.
        * ``draw`` (1,): random number in [0, 1).

    Outputs of the graph:
        * ``stall`` (1,): probability that the video stalls.
        * ``worth`` (1 + P,): worth of the video if it does not stall, then the worth of each video of the pool,
          discounted by the hours since it was loaded.
        * ``choice`` (1,): position of the replacement in the pool; −1 if the video is kept.
        * ``propensity`` (1,): probability of this choice.

    Raises:
        ConfigError: the file would be larger than :data:`LARGEST`.
        ResourceError: onnx is not installed.
    """
    with needs("device", where=str(path)):
        import onnx
        from onnx import TensorProto, helper, numpy_helper

    s = gate.settings
    node = helper.make_node
    numbers = {
        "none": np.zeros(1, np.float32), "rate": np.float32(-np.log(2) / s.half_life_hours), "first": np.array([0]),
        "cost": np.float32(s.stall_cost), "one": np.array([1]), "last": np.array([2**62]), "minus": np.array([-1]),
        "explore": np.float32(s.explore), "sure": np.ones(1, np.float32), "rest": np.float32(1 - s.explore), "flat": np.array([-1]),
    }  # fmt: skip
    trees = [
        node("TreeEnsembleRegressor", [given], [out], domain="ai.onnx.ml", n_targets=1, **_nodes(booster))
        for booster, given, out in ((gate.gate, "video", "stall raw"), (gate.ranker, "all", "value raw"))
    ]
    nodes = [
        node("Concat", ["video", "pool"], ["all"], axis=0), *trees,
        node("Sigmoid", ["stall raw"], ["stall column"]), node("Reshape", ["stall column", "flat"], ["stall"]),
        node("Relu", ["value raw"], ["value column"]), node("Reshape", ["value column", "flat"], ["value"]),
        node("Concat", ["none", "hours"], ["age"], axis=0), node("Mul", ["age", "rate"], ["log decay"]),
        node("Exp", ["log decay"], ["decay"]), node("Mul", ["value", "decay"], ["worth"]),
        node("Slice", ["worth", "first", "one"], ["own"]), node("Slice", ["worth", "one", "last"], ["others"]),
        node("Mul", ["stall", "cost"], ["risk"]), node("Sub", ["risk", "own"], ["need"]),
        node("Add", ["need", "others"], ["gain"]), node("Concat", ["none", "gain"], ["gains"], axis=0),
        node("ArgMax", ["gains"], ["best"], axis=0, keepdims=1), node("Sub", ["best", "one"], ["greedy"]),
        node("GreaterOrEqual", ["greedy", "first"], ["replaces"]), node("Less", ["draw", "explore"], ["explores"]),
        node("And", ["replaces", "explores"], ["stays"]), node("Where", ["stays", "minus", "greedy"], ["choice"]),
        node("Where", ["explores", "explore", "rest"], ["drawn"]), node("Where", ["replaces", "drawn", "sure"], ["propensity"]),
    ]  # fmt: skip
    width = gate.gate.num_feature()

    def tensor(name: str, shape: list[Any], kind: int = TensorProto.FLOAT) -> Any:
        return helper.make_tensor_value_info(name, kind, shape)

    graph = helper.make_graph(
        nodes,
        "device_gate",
        [tensor("video", [1, width]), tensor("pool", ["P", width]), tensor("hours", ["P"]), tensor("draw", [1])],
        [tensor("stall", [1]), tensor("worth", ["N"]), tensor("choice", [1], TensorProto.INT64), tensor("propensity", [1])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in numbers.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", TREE_OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR)
    onnx.checker.check_model(model)
    content = model.SerializeToString(deterministic=True)
    if len(content) > LARGEST:
        raise ConfigError(
            "The gate is too large for a device.",
            where=str(path),
            expected=f"at most {LARGEST} bytes",
            found=f"{len(content)} bytes, {s.trees} trees of {s.leaves} leaves in each of 2 models",
            fix="fit a gate with fewer trees or leaves",
        )
    with atomic_file(path) as temporary:
        Path(temporary).write_bytes(content)
    return len(content)


def _nodes(booster: Booster) -> dict[str, Any]:
    """Return the attributes of ONNX's ``TreeEnsembleRegressor`` for a LightGBM model.

    Features are float32, so each threshold t is rounded down to float32: for a float32 x, x ≤ t holds if and only if x
    ≤ the rounded t.
    """
    rows: list[tuple[int, int, str, int, float, int, int]] = []
    leaves: list[tuple[int, int, float]] = []
    for number, tree in enumerate(booster.dump_model()["tree_info"]):
        for at, part in _flat(tree["tree_structure"]):
            if "leaf_value" in part:
                rows.append((number, at, "LEAF", 0, 0.0, 0, 0))
                leaves.append((number, at, float(part["leaf_value"])))
            else:
                left, right = part["children"]
                rows.append((number, at, "BRANCH_LEQ", part["split_feature"], _down(part["threshold"]), left, right))
    names = ("treeids", "nodeids", "modes", "featureids", "values", "truenodeids", "falsenodeids")
    found: dict[str, Any] = {f"nodes_{name}": list(column) for name, column in zip(names, zip(*rows))}
    tree_ids, node_ids, values = zip(*leaves)
    return found | {
        "target_treeids": list(tree_ids), "target_nodeids": list(node_ids), "target_ids": [0] * len(leaves),
        "target_weights": list(values),
    }  # fmt: skip


def _flat(root: Mapping[str, Any]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the nodes of a tree with their indices, root first. Each branch gets a key ``children`` with the indices of
    its two children."""
    waiting, count = [(0, root)], 1
    while waiting:
        at, part = waiting.pop()
        if "leaf_value" not in part:
            waiting += [(count, part["left_child"]), (count + 1, part["right_child"])]
            part = {**part, "children": (count, count + 1)}
            count += 2
        yield at, part


def _down(value: float) -> float:
    """Return the largest float32 that is not above the given number."""
    near = np.float32(value)
    return float(near if float(near) <= value else np.nextafter(near, np.float32(-np.inf)))
