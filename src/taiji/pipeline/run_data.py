"""Load the tables of a run that several stages read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from taiji.core.artifacts import read_json
from taiji.data import Dataset, Split, open_dataset

if TYPE_CHECKING:
    from taiji.pipeline.engine import Context


def load(context: Context) -> Dataset:
    """Load the dataset of the run into memory."""
    return Dataset.load(context.input("data") / "dataset")


def stored(context: Context) -> Dataset:
    """Open the dataset of the run on disk, for stages that process users one by one."""
    return open_dataset(context.input("data") / "dataset")


def load_split(context: Context) -> Split:
    """Load the split of the run."""
    return Split(tuple(read_json(context.input("examples") / "split.json")["bounds"]))


def load_examples(context: Context, role: str) -> pl.DataFrame:
    """Load the examples of one role: `rationale`, `calibration`, `alignment` or `test`."""
    return pl.read_parquet(context.input("examples") / "examples.parquet").filter(pl.col("role") == role)
