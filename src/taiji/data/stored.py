"""Dataset that stays on disk: the arrays of :mod:`taiji.data.arrays` are memory-mapped and events are scanned.

Its use of memory grows with the number of users and items, but not with the number of events.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, Self

import polars as pl

from taiji.data.arrays import mapped
from taiji.data.dataset import Dataset, read_about, read_frame
from taiji.data.history import History, Prices


class StoredDataset(Dataset):
    """Dataset on disk, with the same contents as a :class:`taiji.data.dataset.Dataset` in memory.

    The first access to ``events`` reads them into memory; ``scan()`` does not.

    Args:
        folder: folder that :meth:`Dataset.save` wrote.
    """

    folder: Path

    def __new__(cls, folder: str | Path | None = None, **tables: Any) -> Self:
        """Return a dataset in memory if tables are given; :func:`dataclasses.replace` calls the class in this way."""
        return super().__new__(cls) if folder is not None else Dataset(**tables)  # type: ignore[return-value]

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        self.__dict__.update(folder=folder, **read_about(folder))
        self.__dict__.update({name: read_frame(folder, name) for name in ("items", "users")})

    @cached_property
    def events(self) -> pl.DataFrame:  # type: ignore[override]
        """All events, in memory."""
        return read_frame(self.folder, "events")

    def scan(self) -> pl.LazyFrame:
        """Return the events as a lazy frame, which reads only what a query needs."""
        return pl.scan_parquet(self.folder / "events.parquet")

    @cached_property
    def event_schema(self) -> pl.Schema:  # type: ignore[override]
        """Columns of the events and their types, without reading the events."""
        return self.scan().collect_schema()

    @cached_property
    def last_time(self) -> int:  # type: ignore[override]
        """Time of the last event, 0 without events; only the end of the file is read."""
        return int(self.scan().select("time").tail(1).collect()["time"].max() or 0)  # type: ignore[arg-type]

    @cached_property
    def history(self) -> History:  # type: ignore[override]
        """Interactions of each user, on disk."""
        offsets, items, times = (
            mapped(self.folder / "history" / f"{name}.npy") for name in ("offsets", "item", "time")
        )
        return History(offsets, items, times, self.last_time)

    @cached_property
    def prices(self) -> Prices:  # type: ignore[override]
        """Prices of items over time, on disk."""
        offsets, prices, times = (
            mapped(self.folder / "prices" / f"{name}.npy") for name in ("offsets", "price", "time")
        )
        listed = self.items["price"].fill_null(float("nan")).to_numpy()
        return Prices(offsets, prices, times, listed, self.last_time)


def open_dataset(folder: str | Path) -> Dataset:
    """Open a dataset on disk, or read it into memory if it was written without arrays.

    Raises:
        ArtifactError: a file is missing or unreadable, or the dataset has an unknown format.
    """
    return StoredDataset(folder) if (Path(folder) / "history" / "offsets.npy").exists() else Dataset.load(folder)
