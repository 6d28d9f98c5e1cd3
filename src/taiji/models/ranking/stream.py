"""Training on more exposures than fit in memory: Parquet files, read in chunks, over and over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import torch

from taiji.core.errors import TaijiError
from taiji.data.statistics import NumericFeatures
from taiji.models.ranking.batches import Arrays
from taiji.models.ranking.encoder import Encoder
from taiji.models.ranking.fit import fit
from taiji.models.ranking.ranker import Ranker
from taiji.models.ranking.settings import RankerSettings
from taiji.models.ranking.train import set_edges

NEEDED = ("user", "item", "time", "click")
OPTIONAL = ("conversion", "ids", "neighbour_items", "vector")


def train_streamed(
    dataset: Any,
    files: str | Path | Sequence[str | Path],
    settings: RankerSettings | None = None,
    seed: int = 0,
    valid: pl.DataFrame | None = None,
    chunk: int = 131_072,
    numeric: NumericFeatures | None = None,
) -> Ranker:
    """Train a ranker on Parquet files of exposures in bounded memory.

    Memory beyond the data set itself and the model is that of one chunk as arrays (about 450 bytes a row with histories
    of 50), whatever the number of rows. Rows are shuffled within a chunk, not across chunks, so files should not be sorted by label.

    Args:
        dataset: as for :func:`taiji.models.ranking.train.train_ranker`; it is held in memory.
        files: one or more Parquet files, read in the order given.
        settings, seed: as for :func:`taiji.models.ranking.train.train_ranker`.
        valid: later exposures for early stopping and calibration; without it every epoch is run and nothing is calibrated.
        chunk: rows turned into arrays at a time.
        numeric: statistics of the data set if built before.
    """
    settings = settings or RankerSettings()
    paths = [Path(file) for file in ([files] if isinstance(files, (str, Path)) else files)]
    rows, end, columns = _survey(paths)
    first = next(_frames(paths, chunk, columns))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        ranker = Ranker.new(dataset, Encoder.fit(dataset, first, settings, until=end), settings, numeric)
        set_edges(ranker, ranker.batches.arrays(first))

        def chunks(epoch: int) -> Iterator[Arrays]:
            for frame in _frames(paths, chunk, columns):
                yield ranker.batches.arrays(frame)

        fit(ranker, chunks, rows, ranker.batches.arrays(valid) if valid is not None else None, seed)
    return ranker


def _survey(paths: list[Path]) -> tuple[int, int, list[str]]:
    """Rows, end of time and columns to read, from the files' metadata and the time column alone."""
    if not paths:
        raise TaijiError("There are no files to train on.", where="ranker", expected="at least one Parquet file")
    rows, end = 0, 0
    for path in paths:
        try:
            names = pl.read_parquet_schema(path)
            facts = (
                pl.scan_parquet(path).select(pl.len().alias("rows"), pl.col("time").max().alias("end")).collect().row(0)
            )
        except Exception as error:
            raise TaijiError(
                "Could not read exposures.",
                where=str(path),
                expected="a Parquet file with the column time",
                found=str(error)[:200],
            ) from error
        missing = [name for name in NEEDED if name not in names]
        if missing:
            raise TaijiError(
                "Columns are missing.", where=str(path), expected=", ".join(NEEDED), found=", ".join(names)
            )
        rows, end = rows + facts[0], max(end, (facts[1] or 0) + 1)
    return rows, end, [name for name in (*NEEDED, *OPTIONAL) if name in names]


def _frames(paths: list[Path], chunk: int, columns: list[str]) -> Iterator[pl.DataFrame]:
    """Frames of ``chunk`` rows (the last of a file may be shorter)."""
    import pyarrow.parquet

    for path in paths:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=chunk, columns=columns):
                frame = pl.from_arrow(batch)
                assert isinstance(frame, pl.DataFrame)
                yield frame
