"""Counters on disk give the statistics of those in memory, bit for bit."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.data.test_stored import log
from tests.models.ranking.conftest import shop_tables

from taiji.data.dataset import Dataset
from taiji.data.event_counts import CLICKS, COUNTS
from taiji.data.settled_statistics import ITEM_STATISTICS, NEVER
from taiji.data.statistics import DAY, NAMES, OWN, WINDOWS, Statistics, statistics_of
from taiji.data.stored import open_dataset
from taiji.data.stored_counts import STORED, StoredCounts, store_counts, stored_statistics


def kept(dataset: Dataset, folder: Path) -> Statistics:
    """Save a dataset, store its counters, and return the statistics that read them."""
    dataset.save(folder / "dataset")
    opened = open_dataset(folder / "dataset")
    store_counts(opened, folder / "dataset", folder / "counts")
    found = stored_statistics(opened, folder / "dataset", folder / "counts")
    assert found is not None and "events" not in vars(opened), "the log itself is not held in memory"
    return found


@pytest.mark.parametrize("kind", ["shop", "dense", "empty"])
def test_statistics_on_disk_are_those_in_memory_before_within_and_after_the_log(tmp_path, kind):
    dataset = {
        "shop": lambda: Dataset.from_tables(shop_tables(users=30, items=25, rows=4000)),
        "dense": lambda: log(5, 3000),
        "empty": lambda: log(5, 0),
    }[kind]()
    random = np.random.default_rng(1)
    users, items = random.integers(0, dataset.n_users + 1, 600), random.integers(0, dataset.n_items, 600)
    first, last = (
        (int(dataset.events["time"].min()), dataset.last_time) if len(dataset.events) else (0, 10)  # type: ignore[arg-type]
    )
    times = random.integers(first - 5, last + 2 + (last - first) // 4, 600)
    disk, memory = kept(dataset, tmp_path), statistics_of(dataset)
    clicks = random.integers(0, 3, 50), random.integers(0, dataset.n_items, 50), random.integers(first, last + 1, 50)
    late = [np.full(600, last + days * DAY + 1) for days in (0, 6, 7, 8, 27, 28, 29, 400)]
    for now in (times, *late, np.full(600, first)):
        ours, theirs = disk.at(users, items, now), memory.at(users, items, now)
        for name in set(NAMES) - set(OWN):
            np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
        mine, same = (each.with_clicks(*clicks).at(users % 3, items, now) for each in (disk, memory))
        for name in OWN:
            np.testing.assert_array_equal(mine[name], same[name], err_msg=name)


def test_every_counter_is_stored_but_those_that_the_question_brings(tmp_path):
    assert {*STORED, *CLICKS} == set(COUNTS) and not set(STORED) & set(CLICKS)
    counts = kept(log(5, 3000), tmp_path).counts
    assert isinstance(counts, StoredCounts)
    for key, events in STORED:
        counter = counts.count(key, events)
        assert isinstance(counter.index.times.base, np.memmap) or counter.index.times.nbytes < 4096
        assert counter.index.latest == int(counter.index.times.max(initial=np.iinfo(np.int64).min))


def test_after_the_log_statistics_of_items_are_read_from_their_row(tmp_path, monkeypatch):
    dataset = Dataset.from_tables(shop_tables(users=30, items=25, rows=4000))
    found = kept(dataset, tmp_path)
    assert found.settled is not None and set(found.settled.ends) == set(ITEM_STATISTICS)
    last, items = max(found.settled.ends.values()), np.arange(25)
    monkeypatch.setattr(found, "counts", None)
    for name, end in found.settled.ends.items():
        assert found.at(items, items, np.full(25, end + 1))[name].shape == (25,)
        times = np.full(25, end + 1)
        times[3] = end
        assert found.settled.column(name, found.at(items, items, times)) is None, "one row is too early"
    assert last == max(found.settled.ends[name] for name in WINDOWS), "windows settle last"


def test_labels_that_never_mature_leave_their_rate_to_the_counters(tmp_path):
    tables = shop_tables(users=30, items=25, rows=4000)
    events = tables.events.with_columns(matured_at=pl.lit(None, tables.events.schema["matured_at"]))
    found = kept(Dataset.from_tables(replace(tables, events=events)), tmp_path)
    assert found.settled is not None
    missing = set(ITEM_STATISTICS) - set(found.settled.ends)
    assert missing <= {"item_conversion_rate"} and all(end < NEVER for end in found.settled.ends.values())


def test_the_same_log_gives_the_same_bytes(tmp_path):
    for place in ("a", "b"):
        kept(log(5, 500), tmp_path / place)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a" / "counts").rglob("*.npy"))
    assert files and all((tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes() for file in files)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def changed(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


SPOILT = {
    "no folder": lambda folder: shutil.rmtree(folder / "counts"),
    "no manifest": lambda folder: (folder / "counts" / "manifest.json").unlink(),
    "manifest cut": lambda folder: cut(folder / "counts" / "manifest.json"),
    "array cut": lambda folder: cut(folder / "counts" / "item-clicked" / "times.npy"),
    "array changed": lambda folder: changed(folder / "counts" / "item-clicked" / "times.npy"),
    "array gone": lambda folder: (folder / "counts" / "item-price" / "sums.npy").unlink(),
    "another log": lambda folder: log(6, 500).save(folder / "dataset"),
}


@pytest.mark.parametrize("kind", SPOILT, ids=list(SPOILT))
def test_what_is_missing_damaged_or_of_another_log_is_not_read(tmp_path, kind):
    kept(log(5, 500), tmp_path)
    SPOILT[kind](tmp_path)
    source = tmp_path / "dataset"
    assert stored_statistics(open_dataset(source), source, tmp_path / "counts") is None
