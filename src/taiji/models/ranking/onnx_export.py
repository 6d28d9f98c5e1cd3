"""Export of a neural ranker as an ONNX graph."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import nn

from taiji.core.artifacts import atomic_file
from taiji.core.errors import ConfigError
from taiji.models.ranking.ranker import Ranker
from taiji.models.ranking.split_inputs import sides_of, split_network
from taiji.models.ranking.split_weights import SplitGraph
from taiji.nn.predictions import decode

OPSET = 17


class _Graph(nn.Module):
    """Network and calibration as one module that maps tensors to predictions."""

    def __init__(self, ranker: Ranker, names: list[str], split: SplitGraph | None) -> None:
        super().__init__()
        self.network, self.names, self.tasks = ranker.network, names, ranker.tasks
        self.calibration = ranker.calibration
        self.joint = None if split is None else split.joint

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outputs = self.network(dict(zip(self.names, inputs))) if self.joint is None else self.joint(*inputs)
        return tuple(decode(outputs, self.tasks, self.calibration).values())


def onnx_inputs(ranker: Ranker, exposures: pl.DataFrame, *, split: bool = False) -> dict[str, np.ndarray]:
    """Return the input arrays of the graph by name. With ``split``, each exposure is a request with one candidate."""
    arrays = ranker.inputs.arrays(exposures)
    batch = ranker.inputs.split_batch(arrays) if split else ranker.inputs.batch(arrays, slice(None))
    return {name: tensor.cpu().numpy() for name, tensor in batch.items()}


def export_onnx(ranker: Ranker, exposures: pl.DataFrame, path: str | Path, *, split: bool = False) -> None:
    """Write the ranker as one ONNX file with one output per prediction (``click``, ``conversion``, ``ctcvr``, …), each
    (rows,).

    Args:
        ranker: ranker to export; the file contains its embeddings and calibration.
        exposures: a few rows (at least two) with the feature columns that the ranker uses, to trace the graph.
        path: file to write. The inputs of the graph are those arrays of :func:`onnx_inputs` that the ranker reads. The
            numbers of rows, distinct users and distinct items may vary. Sequences may have one row per exposure or one
            row per request, see :class:`taiji.models.ranking.ranking_network.Network`.
        split: True to compute the request side once per request (:mod:`taiji.models.ranking.split_weights`). The
            request's inputs then have one row per request. All requests must have the same number of candidates, in
            consecutive rows.

    Raises:
        ConfigError: the network has an operation that ONNX does not support.
        InputError: the network cannot be split; see :func:`taiji.models.ranking.split_inputs.split_network`.
    """
    ranker._evaluating()
    batch = {name: torch.from_numpy(values) for name, values in onnx_inputs(ranker, exposures, split=split).items()}
    device, heads = ranker.device, list(ranker.heads)
    graph = split_network(ranker.network, ranker.fieldset, device) if split else None
    if graph is not None:
        inputs = [node.target for node in graph.joint.graph.nodes if node.op == "placeholder"]
        batch = {str(name): batch[str(name)] for name in inputs}
    names = list(batch)
    axes = {name: {0: axis} for name, axis in _axes(names, ranker, split).items()} | {
        head: {0: "rows"} for head in heads
    }
    refused = (torch.onnx.errors.UnsupportedOperatorError, torch.onnx.errors.SymbolicValueError)
    try:
        with atomic_file(path) as temporary, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                _Graph(ranker, names, graph).eval().cpu(),
                tuple(batch.values()),
                str(temporary),
                input_names=names,
                output_names=heads,
                dynamic_axes=axes,
                opset_version=OPSET,
                dynamo=False,  # the newer exporter needs another package and has no advantage here
            )
    except refused as error:
        raise ConfigError(
            "This ranker has an operation that ONNX does not support.",
            where=type(ranker).__qualname__,
            found=str(error)[:200],
            fix="export a ranker with another model or other settings; for `lifelong`, choose another `operator`",
        ) from error
    finally:
        ranker.network.to(device)


def _axes(names: list[str], ranker: Ranker, split: bool) -> dict[str, str]:
    """Return the name of the first axis of each input."""
    axes = {"users": "users", "user_categories": "users", "items": "items", "request_items": "request_items"}
    axes |= {part: "requests" for name in ranker.layout.sequences for part in (name, f"{name}_age")}
    if split:
        sides = sides_of(ranker.fieldset)
        axes |= dict.fromkeys([*sides.tiled, *(f"request_{name}" for name in sides.columns)], "requests")
    return {name: axes.get(name, "rows") for name in names}
