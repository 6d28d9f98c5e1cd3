"""Counters of a log that are built once, stored on disk, and read through memory maps.

A process loads only the parts that its look-ups touch, and all processes of a machine share these parts in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taiji.core.artifacts import atomic_folder, file_hash, make_folder
from taiji.core.errors import ArtifactError
from taiji.core.manifests import MANIFEST, Verifier, read_manifest, write_manifest
from taiji.data.arrays import mapped
from taiji.data.dataset import Dataset
from taiji.data.event_counts import CLICKS, COUNTS, MEANS, Count, CountKeys, Events, Key, Mean, count_of, mean_of
from taiji.data.past_counts import PastCount, PastMean
from taiji.data.settled_statistics import SettledStatistics, settled
from taiji.data.statistics import Statistics

FORMAT = 2
STORED = tuple(count for count in COUNTS if count not in CLICKS)
"""Counters that are stored. Counters of a user's own clicks are not, because each request supplies these clicks."""
PRICES, SETTLED = "prices.npy", "settled.npy"
"""Files with the last price of each item, and with the statistics of each item after the end of the log."""
SOURCES = ("dataset.json", "events.parquet", "items.parquet")
"""Files of a saved dataset from which the counters are made."""


class StoredCounts:
    """Counters in a folder that :func:`store_counts` wrote; see :class:`taiji.data.event_counts.EventCounts`.

    Args:
        folder: the folder.
        until: time of the last event of each counter in microseconds, by the name of the counter.
    """

    def __init__(self, folder: Path, until: Mapping[str, int]) -> None:
        self._folder, self._until = folder, until
        self._counts: dict[Count, PastCount] = {}
        self._means: dict[Mean, PastMean] = {}

    def count(self, key: Key, events: Events) -> PastCount:
        """Return the counter of events by a key, one of :data:`STORED`."""
        if (key, events) not in self._counts:
            self._counts[key, events] = PastCount.of(*self._read(f"{key}-{events}"))
        return self._counts[key, events]

    def mean(self, key: Mean) -> PastMean:
        """Return the means of log1p prices by a key."""
        if key not in self._means:
            self._means[key] = PastMean.of(*self._read(f"{key}-price"))
        return self._means[key]

    def _read(self, name: str) -> tuple[dict[str, NDArray[Any]], int]:
        return {path.stem: mapped(path) for path in (self._folder / name).glob("*.npy")}, self._until[name]


def store_counts(dataset: Dataset, source: Path, folder: Path) -> None:
    """Write the counters of a dataset, one after the other, so that no more than one is in memory.

    Args:
        dataset: the dataset.
        source: the folder from which the dataset was read.
        folder: the folder to write, atomically.
    """
    keys, events, until = CountKeys.of(dataset.items, dataset.levels), dataset.scan(), {}
    makers: dict[str, Callable[[], PastCount | PastMean]] = {}
    makers |= {f"{key}-{kind}": partial(count_of, events, keys, key, kind) for key, kind in STORED}
    makers |= {f"{key}-price": partial(mean_of, events, keys, dataset.prices.listed, key) for key in MEANS}
    with atomic_folder(folder) as temporary:
        for name, make in makers.items():
            made = make()
            times = made.arrays["times"]
            until[name] = int(np.max(times, initial=np.iinfo(np.int64).min))
            make_folder(temporary / name)
            for array, values in made.arrays.items():
                np.save(temporary / name / f"{array}.npy", values)
        for level, codes in enumerate(keys.codes):
            np.save(temporary / f"codes_{level}.npy", codes)
        every = np.arange(dataset.n_items)
        np.save(temporary / PRICES, dataset.prices.before(every, np.full(len(every), dataset.last_time + 1)))
        ended = settled(_opened(dataset, temporary, until, keys.sizes), dataset.n_items, until)
        np.save(temporary / SETTLED, ended.values)
        about = {"format": FORMAT, "until": until, "sizes": keys.sizes, "source": source_hash(source)}
        about["settled"] = list(ended.ends.items())
        write_manifest(temporary, about)


def stored_statistics(dataset: Dataset, source: Path, folder: Path) -> Statistics | None:
    """Return the statistics of a dataset whose counters are in a folder; None if they are missing, are damaged, or
    belong to another log.

    Args:
        dataset, source, folder: as for :func:`store_counts`.
    """
    if not (folder / MANIFEST).is_file():
        return None
    try:
        manifest = read_manifest(folder)
    except ArtifactError:
        return None
    if manifest.get("format") != FORMAT or manifest["source"] != source_hash(source):
        return None
    if Verifier().damage(folder, manifest):
        return None
    ended = SettledStatistics(mapped(folder / SETTLED), dict(manifest["settled"]))
    return _opened(dataset, folder, manifest["until"], manifest["sizes"], ended)


def _opened(
    dataset: Dataset,
    folder: Path,
    until: Mapping[str, int],
    sizes: Sequence[int],
    ended: SettledStatistics | None = None,
) -> Statistics:
    """Return the statistics whose counters are in a folder."""
    codes = tuple(mapped(folder / f"codes_{level}.npy") for level in range(len(sizes)))
    prices = replace(dataset.prices, final=mapped(folder / PRICES))
    return Statistics(StoredCounts(folder, until), CountKeys(dataset.n_items, codes, tuple(sizes)), prices, ended)


def source_hash(source: Path) -> dict[str, str]:
    """Return the hash of each of the :data:`SOURCES` in the folder of a dataset."""
    return {name: file_hash(source / name) for name in SOURCES}
