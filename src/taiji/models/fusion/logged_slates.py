"""Logged slates to which a fusion is fitted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from taiji.core.component import NO_ITEM, Requests
from taiji.data.dataset import Dataset
from taiji.models.fusion.learnt_fusion import CANDIDATES, FusionRows


def logged_slates(dataset: Dataset, shown: pl.DataFrame, predictions: pl.DataFrame, tasks: Sequence[str]) -> FusionRows:
    """Return one slate per user and time, in order of time.

    Args:
        dataset: the dataset of the log.
        shown: exposures, with the columns ``user``, ``item`` and ``time``, label columns (null while a label is not yet
            known), and columns of the context.
        predictions: one row per exposure, in the same order, with one column per prediction.
        tasks: names of the predictions that have a label; the label column has the same name.
    """
    frame = pl.DataFrame({name: shown[name].cast(pl.Int64) for name in ("user", "item", "time")})
    frame = frame.with_row_index("row").sort("time", "user", "row", maintain_order=True)
    keys = frame.select(pl.struct("time", "user").rle_id())["time"].to_numpy().astype(np.int64)
    first = np.unique(keys, return_index=True)[1]
    place = np.arange(len(keys)) - first[keys]
    shape = (len(first), int(place.max(initial=0)) + 1)
    order = frame["row"].to_numpy()

    def matrix(values: np.ndarray, empty: float) -> np.ndarray:
        out = np.full(shape, empty, dtype=np.int64 if empty == NO_ITEM else np.float64)
        out[keys, place] = values[order]
        return out

    items = matrix(shown["item"].to_numpy().astype(np.int64), NO_ITEM)
    columns = {name: shown[name].to_numpy()[order[first]] for name in dataset.context if name in shown.columns}
    requests = Requests(
        frame["user"].to_numpy()[first], frame["time"].to_numpy()[first], {**columns, CANDIDATES: items}
    )
    heads = [name for name in predictions.columns if name != "event"]
    labels = {t: _floats(shown[t]) for t in tasks if t in shown.columns}
    return FusionRows(
        requests,
        {name: matrix(predictions[name].to_numpy(), np.nan) for name in heads},
        {name: matrix(values, np.nan) for name, values in labels.items()},
    )


def _floats(column: pl.Series) -> np.ndarray:
    return column.cast(pl.Float64).fill_null(float("nan")).to_numpy()
