"""Dataset that stays on disk: the arrays of :mod:`taiji.data.arrays` are memory-mapped and events are scanned.

Its memory grows with the number of users and items, but not with the number of events.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import polars as pl

from taiji.data.arrays import mapped
from taiji.data.dataset import Dataset, read_about, read_frame
from taiji.data.history import History, Prices


class StoredDataset(Dataset):
    """Stored version of :class:`taiji.data.dataset.Dataset` with the same contents. ``events`` is read on access; ``scan()`` does not read it.

    Args:
        folder: folder that :meth:`Dataset.save` wrote.
    """

    folder: Path

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
    def history(self) -> History:  # type: ignore[override]
        """Interactions of each user, on disk."""
        return History(*(mapped(self.folder / "history" / f"{name}.npy") for name in ("offsets", "item", "time")))

    @cached_property
    def prices(self) -> Prices:  # type: ignore[override]
        """Prices of items over time, on disk."""
        offsets, prices, times = (
            mapped(self.folder / "prices" / f"{name}.npy") for name in ("offsets", "price", "time")
        )
        return Prices(offsets, prices, times, self.items["price"].fill_null(float("nan")).to_numpy())


def open_dataset(folder: str | Path) -> Dataset:
    """Open a dataset on disk, or read it into memory if it was written without arrays.

    Raises:
        ArtifactError: see :meth:`Dataset.load`.
    """
    return StoredDataset(folder) if (Path(folder) / "history" / "offsets.npy").exists() else Dataset.load(folder)
