"""Train the built-in ranker on a frame of exposures."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import torch

from taiji.core.errors import TaijiError
from taiji.data.statistics import NumericFeatures
from taiji.models.ranking.batches import Arrays
from taiji.models.ranking.encoder import Encoder
from taiji.models.ranking.fit import fit
from taiji.models.ranking.ranker import Ranker
from taiji.models.ranking.settings import RankerSettings


def train_ranker(
    dataset: Any,
    exposures: pl.DataFrame,
    settings: RankerSettings | None = None,
    seed: int = 0,
    valid: pl.DataFrame | None = None,
    until: int | None = None,
    numeric: NumericFeatures | None = None,
) -> Ranker:
    """Train a multi-task ranker.

    Args:
        dataset: ``taiji.data.dataset.Dataset``; its history and past events feed the model, strictly before each row's time.
        exposures: event, user, item, time (microseconds), click, conversion (null = not known), and optionally ``ids``,
            ``neighbour_items``, ``vector``; each present column is used.
        settings: shape and training.
        seed: of initialisation, shuffling and dropout; on a CPU the same seed gives the same weights.
        valid: later exposures for early stopping and calibration; by default the latest ``valid_fraction`` of the rows.
        until: use only exposures strictly before this time (microseconds).
        numeric: statistics of this data set if built before (they take a few seconds for millions of events).

    Raises:
        TaijiError: no rows, or no row with either label.
    """
    settings = settings or RankerSettings()
    if until is not None:
        exposures = exposures.filter(pl.col("time") < until)
    _check(exposures)
    if valid is None:
        exposures, valid = later_slice(exposures, settings.valid_fraction)
    elif until is not None:
        valid = valid.filter(pl.col("time") < until)
    end = int(exposures["time"].max()) + 1  # type: ignore[arg-type]
    encoder = Encoder.fit(dataset, exposures, settings, until=end)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        ranker = Ranker.new(dataset, encoder, settings, numeric)
        arrays = ranker.batches.arrays(exposures)
        set_edges(ranker, arrays)
        held_out = ranker.batches.arrays(valid) if len(valid) else None
        fit(ranker, lambda epoch: [arrays], len(arrays), held_out, seed)
    return ranker


def train_extractor(
    base: Ranker,
    dataset: Any,
    exposures: pl.DataFrame,
    settings: RankerSettings,
    seed: int = 0,
    valid: pl.DataFrame | None = None,
) -> Ranker:
    """Add a KSER module to a trained ranker and train that module alone (extractor-only).

    Args:
        base: trained without ``vector``; its weights are copied and stay as they are, and so does ``base`` itself.
        settings: ``text`` must be ``select_align``; shape settings must be those of ``base``.
        dataset, exposures, seed, valid: as for :func:`train_ranker`.
    """
    _check(exposures)
    if settings.text != "select_align" or base.encoder.vector_width:
        raise TaijiError(
            "Extractor-only training adds a filter to a ranker that has none.",
            where="ranking.text",
            expected="text = select_align, and a base ranker trained without the vector column",
            found=f"text = {settings.text}, base vector width {base.encoder.vector_width}",
        )
    if valid is None:
        exposures, valid = later_slice(exposures, settings.valid_fraction)
    fresh = Encoder.fit(dataset, exposures.head(1000), settings, until=int(exposures["time"].max()) + 1)  # type: ignore[arg-type]
    encoder = Encoder.restore(base.encoder.config() | {"vector_width": fresh.vector_width}, base.encoder.tensors())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        ranker = Ranker.new(
            dataset, encoder, settings, base.batches.numeric if base.batches.dataset is dataset else None
        )
        ranker.model.load_state_dict(base.model.state_dict(), strict=False)
        arrays = ranker.batches.arrays(exposures)
        set_vector_scales(ranker, arrays)
        fit(
            ranker,
            lambda epoch: [arrays],
            len(arrays),
            ranker.batches.arrays(valid) if len(valid) else None,
            seed,
            frozen=True,
        )
    return ranker


def later_slice(exposures: pl.DataFrame, fraction: float) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split by time: (earlier, latest ``fraction`` of the rows); rows of one moment stay together."""
    cut = exposures["time"].quantile(1 - fraction, interpolation="lower")
    return exposures.filter(pl.col("time") < cut), exposures.filter(pl.col("time") >= cut)


def set_edges(ranker: Ranker, arrays: Arrays, sample: int = 100_000) -> None:
    """Set the scales of what is read: the pieces of the numeric encoding from the quantiles of (a stride of) the training rows."""
    bins = ranker.settings.bins
    values = arrays.numeric[:: max(1, len(arrays) // sample)].astype(np.float64)
    edges = np.zeros((values.shape[1], bins + 1), dtype=np.float32)
    for place, column in enumerate(values.T):
        spread = np.unique(np.quantile(column, np.linspace(0, 1, bins + 1)))
        more = np.quantile(np.unique(column), np.linspace(0, 1, bins + 3 - len(spread))[1:-1])
        edges[place] = np.sort(np.concatenate([spread, more]))
    ranker.model.edges.copy_(torch.from_numpy(edges))
    ranker.model.scales.copy_(torch.from_numpy(np.stack([values.mean(axis=0), values.std(axis=0)])))
    set_vector_scales(ranker, arrays, sample)


def set_vector_scales(ranker: Ranker, arrays: Arrays, sample: int = 100_000) -> None:
    """Set mean and spread of the text vectors from (a stride of) the training rows that have one."""
    rows = np.flatnonzero(arrays.has_vector)
    if len(rows):
        vectors = arrays.vector[rows[:: max(1, len(rows) // sample)]].astype(np.float64)
        ranker.model.vector_scales.copy_(torch.from_numpy(np.stack([vectors.mean(axis=0), vectors.std(axis=0)])))


def _check(exposures: pl.DataFrame) -> None:
    missing = {"user", "item", "time", "click"} - set(exposures.columns)
    if missing:
        raise TaijiError(
            "Columns are missing.",
            where="exposures",
            expected="user, item, time, click",
            found=", ".join(exposures.columns),
        )
    if exposures["click"].n_unique() < 2:
        raise TaijiError(
            "There is nothing to learn: all exposures have the same label, or there are none.",
            where="exposures",
            expected="rows with click = 0 and rows with click = 1",
            found=f"{len(exposures)} rows",
            fix="give the period more of split.fractions, or raise data.non_clicks",
        )
