"""Training on more exposures than fit in memory: every pass reads Parquet files in chunks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import polars as pl

from taiji.core.errors import InputError
from taiji.data.dataset import Dataset
from taiji.data.field_rows import NEEDED
from taiji.models.ranking.ranker import Ranker, ranker_class
from taiji.models.ranking.settings import NeuralRankerSettings, RankerSettings


def train_streamed(
    dataset: Dataset,
    files: str | Path | Sequence[str | Path],
    settings: NeuralRankerSettings | None = None,
    seed: int = 0,
    valid: pl.DataFrame | None = None,
    chunk: int = 131_072,
) -> Ranker:
    """Train a ranker on Parquet files of exposures in bounded memory.

    Besides the dataset and the model, only one chunk is in memory as arrays (about 450 bytes per row with histories of
    50 items). Rows are shuffled within a chunk, not across chunks, so the files should not be sorted by label.

    Args:
        dataset: as for :func:`taiji.models.ranking.train.train_ranker`; it is held in memory.
        files: one or more Parquet files, read in the given order. The first chunk determines the scales and the
            vocabularies of context columns.
        settings, seed: as for :func:`taiji.models.ranking.train.train_ranker`.
        valid: later exposures for early stopping and calibration; without them, all epochs are run and nothing is
            calibrated.
        chunk: number of rows converted to arrays at a time.

    Raises:
        InputError: a file cannot be read, columns are missing or differ between files, or there are no rows.
    """
    settings = settings or RankerSettings()
    paths = [Path(file) for file in ([files] if isinstance(files, (str, Path)) else files)]
    rows, end, columns = _survey(paths)
    ranker = ranker_class(settings.model)(settings)
    frames = partial(_frames, paths, chunk, columns)
    return ranker.fit_chunks(dataset, frames, rows=rows, until=end, seed=seed, valid=valid)


def _survey(paths: list[Path]) -> tuple[int, int, list[str]]:
    """Return the number of rows, a time (microseconds) after all rows, and the columns to read.

    Only the metadata and the time column of the files are read.
    """
    if not paths:
        raise InputError("There are no files to train on.", where="ranker", expected="at least one Parquet file")
    rows, end = 0, 0
    columns: list[str] = []
    for path in paths:
        try:
            names = pl.read_parquet_schema(path)
            facts = (
                pl.scan_parquet(path).select(pl.len().alias("rows"), pl.col("time").max().alias("end")).collect().row(0)
            )
        except Exception as error:
            raise InputError(
                "Could not read exposures.",
                where=str(path),
                expected="a Parquet file with the column time",
                found=str(error)[:200],
            ) from error
        missing = [name for name in NEEDED if name not in names]
        if missing:
            raise InputError(
                "Columns are missing.", where=str(path), expected=", ".join(NEEDED), found=", ".join(names)
            )
        if columns and set(columns) != set(names):
            raise InputError(
                "The files of exposures have different columns.",
                where=str(path),
                expected=f"the columns of {paths[0]}: {', '.join(columns)}",
                found=", ".join(names),
                fix="add every label and feature to every file; if a file has no values for one, add nulls",
            )
        rows, end, columns = rows + facts[0], max(end, (facts[1] or 0) + 1), columns or list(names)
    if not rows:
        raise InputError(
            "The files contain no exposures.", where=", ".join(map(str, paths)), expected="at least one row"
        )
    return rows, end, columns


def _frames(paths: list[Path], chunk: int, columns: list[str]) -> Iterator[pl.DataFrame]:
    """Yield frames of at most ``chunk`` rows, file by file."""
    import pyarrow.parquet

    for path in paths:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=chunk, columns=columns):
                frame = pl.from_arrow(batch)
                assert isinstance(frame, pl.DataFrame)
                yield frame
