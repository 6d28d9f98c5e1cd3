"""A neural ranker as an ONNX graph."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import nn

from taiji.core.artifacts import atomic_file
from taiji.data.field_set import Layout
from taiji.models.ranking.ranker import Ranker
from taiji.nn.predictions import decode

OPSET = 17


class _Graph(nn.Module):
    """Network and calibration, tensors in, predictions out."""

    def __init__(self, ranker: Ranker, names: list[str]) -> None:
        super().__init__()
        self.network, self.names, self.tasks = ranker.network, names, ranker.tasks
        self.calibration = ranker.calibration

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outputs = self.network(dict(zip(self.names, inputs)))
        return tuple(decode(outputs, self.tasks, self.calibration).values())


def onnx_inputs(ranker: Ranker, exposures: pl.DataFrame) -> dict[str, np.ndarray]:
    """Return the graph's inputs for some exposures."""
    batch = ranker.inputs.batch(ranker.inputs.arrays(exposures), slice(None))
    return {name: tensor.cpu().numpy() for name, tensor in batch.items()}


def export_onnx(ranker: Ranker, exposures: pl.DataFrame, path: str | Path) -> None:
    """Write the ranker as one ONNX file with an output per prediction (``click``, ``conversion``, ``ctcvr``, …), (rows,) each.

    Args:
        ranker: to be exported; embeddings and calibration go into the file.
        exposures: a few rows (two or more) with the feature columns that the ranker uses, to trace the graph.
        path: of the file. Inputs are those of :func:`onnx_inputs` that the ranker reads; rows, distinct users and distinct
            items may be any number, and sequences may have one row per row or one per request, see :class:`taiji.models.ranking.ranking_network.Network`.
    """
    batch = {
        name: tensor.cpu() for name, tensor in ranker.inputs.batch(ranker.inputs.arrays(exposures), slice(None)).items()
    }
    names = list(batch)
    device, heads = ranker.device, list(ranker.heads)
    axes = {name: {0: axis} for name, axis in _axes(names, ranker.layout).items()} | {
        head: {0: "rows"} for head in heads
    }
    ranker.network.eval()
    try:
        with atomic_file(path) as temporary, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                _Graph(ranker, names).eval().cpu(),
                tuple(batch.values()),
                str(temporary),
                input_names=names,
                output_names=heads,
                dynamic_axes=axes,
                opset_version=OPSET,
                dynamo=False,  # the other exporter needs a further package and gains nothing here
            )
    finally:
        ranker.network.to(device)


def _axes(names: list[str], layout: Layout) -> dict[str, str]:
    """Return what the first axis of each input counts."""
    axes = {"users": "users", "user_categories": "users", "items": "items"}
    axes |= {part: "requests" for name in layout.sequences for part in (name, f"{name}_age")}
    return {name: axes.get(name, "rows") for name in names}
