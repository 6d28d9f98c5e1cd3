"""A dataset on disk answers as the one in memory does."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taiji.data import arrays
from taiji.data.dataset import Dataset
from taiji.data.examples import make_examples
from taiji.data.settings import ExampleSettings
from taiji.data.splits import exposures, time_split
from taiji.data.stored import StoredDataset, open_dataset


def log(seed: int, events: int, users: int = 30, items: int = 20) -> Dataset:
    rng = np.random.default_rng(seed)
    frame = pl.DataFrame(
        {
            "user": rng.integers(0, users, events).astype(np.uint32),
            "item": rng.integers(0, items, events).astype(np.uint32),
            "time": np.sort(rng.integers(0, 200, events)),
            "exposed": rng.random(events) < 0.8,
            "click": (rng.random(events) < 0.5).astype(np.int8),
            "conversion": pl.Series((rng.random(events) < 0.2).astype(np.int8)),
            "price": pl.Series(
                [None if rng.random() < 0.3 else float(p) for p in rng.integers(1, 9, events)], dtype=pl.Float64
            ),
        }
    ).sort("time", "user", maintain_order=True)
    frame = frame.with_row_index("event").with_columns(matured_at=pl.col("time") + 20)
    catalogue = pl.DataFrame(
        {
            "item": range(items),
            "item_id": [f"i{i}" for i in range(items)],
            "title": [f"thing {i}" for i in range(items)],
            **dict.fromkeys(("category_l1", "category_l2", "category_l3"), ["a"] * items),
            "price": [None, *[2.5] * (items - 1)],
        },
        schema_overrides={"item": pl.UInt32},
    )
    people = pl.DataFrame(
        {"user": range(users), "user_id": [f"u{u}" for u in range(users)]}, schema_overrides={"user": pl.UInt32}
    )
    return Dataset(catalogue, people, frame, "small", "shop")


@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1000), events=st.integers(0, 300), held=st.sampled_from([7, 64, 1_000_000]))
def test_histories_and_prices_are_those_in_memory_however_few_rows_are_held(
    tmp_path_factory, monkeypatch, seed, events, held
):
    monkeypatch.setattr(arrays, "ROWS", held)
    folder = tmp_path_factory.mktemp("d") / "dataset"
    memory = log(seed, events)
    memory.save(folder)
    disk = open_dataset(folder)
    assert isinstance(disk, StoredDataset)
    for name in ("offsets", "items", "times"):
        np.testing.assert_array_equal(getattr(disk.history, name), getattr(memory.history, name))
    for name in ("offsets", "prices", "times", "listed"):
        np.testing.assert_array_equal(getattr(disk.prices, name), getattr(memory.prices, name))
    assert disk.scan().collect().equals(memory.events) and disk.events.equals(memory.events)


@pytest.fixture
def both(tmp_path):
    memory = log(3, 20_000)
    memory.save(tmp_path / "dataset")
    return memory, open_dataset(tmp_path / "dataset")


def test_a_dataset_with_other_tables_is_in_memory(both):
    memory, disk = both
    found = replace(disk, items=disk.items.with_columns(price=pl.lit(1.0)))
    assert type(found) is Dataset and found.events.equals(memory.events) and found.name == memory.name
    assert found.items["price"].to_list() == [1.0] * 20 and found.prices.until is None
    assert (disk.last_time, disk.event_schema) == (memory.last_time, memory.event_schema)


def test_lookups_splits_and_exposures_agree(both):
    memory, disk = both
    users, as_ofs = np.random.default_rng(0).integers(0, 30, 500), np.random.default_rng(1).integers(-5, 210, 500)
    for ours, theirs in zip(disk.history.before_batch(users, as_ofs, 7), memory.history.before_batch(users, as_ofs, 7)):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == np.int64
    items, _ = disk.history.before(3, 100, 5)
    assert items.dtype == np.int64 and type(items) is np.ndarray
    split = time_split(memory)
    assert time_split(disk) == split
    for period in ("reward", "test"):
        assert exposures(disk, split, period).equals(exposures(memory, split, period))
    assert "events" not in disk.__dict__, "nobody has read the whole log"


@pytest.mark.parametrize(
    "settings",
    [ExampleSettings(min_history=1, per_user=None), ExampleSettings(min_history=2, target="next_purchase", limit=25)],
)
def test_examples_do_not_depend_on_how_many_users_are_looked_at_together(both, monkeypatch, settings):
    memory, disk = both
    split = time_split(memory)
    whole = make_examples(memory, split, "llm", settings, 0)
    monkeypatch.setattr("taiji.data.examples.INTERACTIONS", 700)
    assert len(disk.history.ranges(700)) > 5
    assert make_examples(disk, split, "llm", settings, 0).equals(whole)


def test_ranges_cover_every_user_once(both):
    ranges = both[0].history.ranges(900)
    assert ranges[0][0] == 0 and ranges[-1][1] == 30
    assert all(a[1] == b[0] for a, b in itertools.pairwise(ranges)) and all(first < last for first, last in ranges)
    first, last = ranges[1]
    part = both[1].history.part(first, last)
    np.testing.assert_array_equal(
        part.count_before(np.arange(last - first), [150] * (last - first)),
        both[0].history.count_before(np.arange(first, last), [150] * (last - first)),
    )


def test_a_dataset_written_without_its_arrays_is_read_into_memory(both, tmp_path):
    import shutil

    shutil.rmtree(tmp_path / "dataset" / "history")
    assert type(open_dataset(tmp_path / "dataset")) is Dataset
