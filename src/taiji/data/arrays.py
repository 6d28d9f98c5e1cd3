"""Store histories and prices as plain arrays next to the tables of a dataset.

The arrays are written in bounded memory by a counting sort on disk: a first pass over the events counts the events of
each user or item, and a second pass writes every event to its position. The arrays are read through memory maps, so
that the operating system decides which of their pages stay in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from taiji.core.artifacts import make_folder, read_json

ROWS = 1_000_000
"""Number of events in memory at a time while the arrays are written."""
KINDS = {"item": np.uint32, "time": np.int64, "price": np.float64}


def store_arrays(folder: Path) -> None:
    """Write the histories and prices of the dataset in ``folder`` from its ``events.parquet``, in bounded memory."""
    rows = read_json(folder / "dataset.json")["rows"]
    events = folder / "events.parquet"
    _group(events, "user", rows["users"], ("item", "time"), pl.col("click") == 1, ("click",), folder / "history")
    _group(events, "item", rows["items"], ("price", "time"), pl.col("price").is_not_null(), (), folder / "prices")


def _group(
    events: Path, key: str, count: int, columns: Sequence[str], kept: pl.Expr, needed: Sequence[str], folder: Path
) -> None:
    """Write ``columns`` of the kept events, grouped by ``key``, and the offsets of the groups, ``(count + 1,)``.

    Within a group, events keep the order of the file.
    """
    counts = np.zeros(count, np.int64)
    for frame in _batches(events, [key, *needed, *(["price"] if "price" in columns else [])]):
        counts += np.bincount(frame.filter(kept)[key].to_numpy(), minlength=count)
    offsets = np.zeros(count + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    make_folder(folder)
    np.save(folder / "offsets.npy", offsets)
    arrays = {name: _new(folder / f"{name}.npy", KINDS[name], int(offsets[-1])) for name in columns}
    free = offsets[:-1].copy()
    for frame in _batches(events, list(dict.fromkeys([key, *needed, *columns]))):
        frame = frame.filter(kept)
        keys = frame[key].to_numpy().astype(np.int64)
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        starts = np.flatnonzero(np.diff(ordered, prepend=-1))
        lengths = np.diff(np.append(starts, len(ordered)))
        places = free[ordered] + np.arange(len(ordered)) - np.repeat(starts, lengths)
        for name, array in arrays.items():
            array[places] = frame[name].to_numpy()[order]
        free[ordered[starts]] += lengths
    for array in arrays.values():
        if isinstance(array, np.memmap):
            array.flush()


def _batches(path: Path, columns: list[str]) -> Iterator[pl.DataFrame]:
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        for batch in file.iter_batches(ROWS, columns=columns):
            yield pl.DataFrame(pl.from_arrow(batch))


def _new(path: Path, kind: type, length: int) -> NDArray[Any]:
    if not length:  # an empty array cannot be mapped
        np.save(path, np.empty(0, kind))
        return np.empty(0, kind)
    return np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=(length,))


def mapped(path: Path) -> NDArray[Any]:
    """Open an array on disk through a memory map, or read it into memory if it is small."""
    return np.asarray(np.load(path, mmap_mode=None if path.stat().st_size < 4096 else "r"))
