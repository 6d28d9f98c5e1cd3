"""The built-in ranker as an ONNX graph."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import nn

from taiji.core.artifacts import atomic_file
from taiji.models.ranking.ranker import Ranker

ROW_AXES = {"users": "users", "profiles": "users", "items": "items"}
"""Inputs whose first axis does not count rows: the distinct users and items of a batch."""
OPSET = 17


class _Graph(nn.Module):
    """Model and calibration, tensors in, probabilities out."""

    def __init__(self, ranker: Ranker, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = ranker.model, names
        self.calibration = [ranker.calibration[task] for task in ("click", "conversion")]

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        logits = self.model(dict(zip(self.names, inputs)))
        click, conversion = (
            torch.sigmoid(scale * logit + shift) for logit, (scale, shift) in zip(logits, self.calibration)
        )
        return click, conversion, click * conversion


def onnx_inputs(ranker: Ranker, exposures: pl.DataFrame) -> dict[str, np.ndarray]:
    """The graph's inputs for some exposures."""
    batch = ranker.batches.batch(ranker.batches.arrays(exposures), slice(None))
    return {name: tensor.numpy() for name, tensor in batch.items()}


def export_onnx(ranker: Ranker, exposures: pl.DataFrame, path: str | Path) -> None:
    """Write the ranker as one ONNX file with outputs ``click``, ``conversion`` and ``ctcvr``, (rows,) each.

    Args:
        ranker: to be exported; embeddings and calibration go into the file.
        exposures: a few rows (two or more) with the feature columns that the ranker uses, to trace the graph.
        path: of the file. Inputs are those of :func:`onnx_inputs` that the ranker reads; rows, distinct users and distinct items may be any number.
    """
    batch = ranker.batches.batch(ranker.batches.arrays(exposures), slice(None))
    names = list(batch)
    axes = {name: {0: ROW_AXES.get(name, "rows")} for name in names}
    axes |= {name: {0: "rows"} for name in ("click", "conversion", "ctcvr")}
    ranker.model.eval()
    with atomic_file(path) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Graph(ranker, names).eval(),
            tuple(batch.values()),
            str(temporary),
            input_names=names,
            output_names=["click", "conversion", "ctcvr"],
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,  # the other exporter needs a further package and gains nothing here
        )
