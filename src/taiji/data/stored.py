"""A dataset that stays on disk: histories and prices memory-mapped, events scanned; memory grows with users and items, not with events.

Histories and prices are written beside the tables by one stream over the events (a counting sort on disk: count the rows
of each user, then put every row in its place), as plain arrays that are mapped into memory when they are read. What
is read is the operating system's to keep or to drop.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from taiji.artifacts import read_json
from taiji.data.dataset import Dataset, read_about, read_frame
from taiji.data.history import History, Prices

ROWS = 1_000_000
"""Events held at a time while the arrays are written."""
KINDS = {"item": np.uint32, "time": np.int64, "price": np.float64}


class StoredDataset(Dataset):
    """:class:`taiji.data.dataset.Dataset` with the same answers; ``events`` is read only when it is asked for, ``scan()`` does without.

    Args:
        folder: where :meth:`Dataset.save` wrote it.
    """

    folder: Path

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        about = read_about(folder)
        values = {"folder": folder, "name": about["name"], "domain": about["domain"], "notes": tuple(about["notes"])}
        self.__dict__.update(values, items=read_frame(folder, "items"), users=read_frame(folder, "users"))

    @cached_property
    def events(self) -> pl.DataFrame:  # type: ignore[override]
        """The whole log, in memory."""
        return read_frame(self.folder, "events")

    def scan(self) -> pl.LazyFrame:
        """The log, read as far as a query needs it."""
        return pl.scan_parquet(self.folder / "events.parquet")

    @cached_property
    def history(self) -> History:  # type: ignore[override]
        """Interactions per user, on disk."""
        return History(*(_open(self.folder / "history" / f"{name}.npy") for name in ("offsets", "item", "time")))

    @cached_property
    def prices(self) -> Prices:  # type: ignore[override]
        """Prices over time, on disk."""
        offsets, prices, times = (_open(self.folder / "prices" / f"{name}.npy") for name in ("offsets", "price", "time"))
        return Prices(offsets, prices, times, self.items["price"].fill_null(float("nan")).to_numpy())


def open_dataset(folder: str | Path) -> Dataset:
    """The dataset on disk, or in memory where it was written without its arrays.

    Raises:
        TaijiError: see :meth:`Dataset.load`.
    """
    return StoredDataset(folder) if (Path(folder) / "history" / "offsets.npy").exists() else Dataset.load(folder)


def store_arrays(folder: Path) -> None:
    """Write the histories and prices of the dataset in ``folder`` from its ``events.parquet``, in bounded memory."""
    rows = read_json(folder / "dataset.json")["rows"]
    events = folder / "events.parquet"
    _group(events, "user", rows["users"], ("item", "time"), pl.col("click") == 1, ("click",), folder / "history")
    _group(events, "item", rows["items"], ("price", "time"), pl.col("price").is_not_null(), (), folder / "prices")


def _group(events: Path, key: str, count: int, columns: Sequence[str], kept: pl.Expr, needed: Sequence[str], folder: Path) -> None:
    """Columns of the kept events, grouped by ``key`` in the order of the file, and the groups' offsets ``(count + 1,)``."""
    counts = np.zeros(count, np.int64)
    for frame in _batches(events, [key, *needed, *(["price"] if "price" in columns else [])]):
        counts += np.bincount(frame.filter(kept)[key].to_numpy(), minlength=count)
    offsets = np.zeros(count + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    folder.mkdir()
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


def _new(path: Path, kind: type, length: int) -> NDArray:
    if not length:  # nothing cannot be mapped
        np.save(path, np.empty(0, kind))
        return np.empty(0, kind)
    return np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=(length,))


def _open(path: Path) -> NDArray:
    return np.asarray(np.load(path, mmap_mode=None if path.stat().st_size < 4096 else "r"))
