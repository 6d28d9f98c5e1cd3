"""Tables of a run that are read by several stages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from taiji.core.artifacts import read_json
from taiji.data import Dataset, Split, open_dataset

if TYPE_CHECKING:
    from taiji.pipeline.engine import Context


def load(context: Context) -> Dataset:
    """The dataset of the run, in memory."""
    return Dataset.load(context.input("data") / "dataset")


def stored(context: Context) -> Dataset:
    """The dataset of the run, left on disk, for stages that process users one by one."""
    return open_dataset(context.input("data") / "dataset")


def load_split(context: Context) -> Split:
    """The split of the run."""
    return Split(tuple(read_json(context.input("examples") / "split.json")["bounds"]))


def load_examples(context: Context, role: str) -> pl.DataFrame:
    """The prompts of one role: `rationale`, `calibration`, `alignment` or `test`."""
    return pl.read_parquet(context.input("examples") / "examples.parquet").filter(pl.col("role") == role)
