from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from taiji.core.artifacts import file_hash
from taiji.core.errors import TaijiError
from taiji.data import Dataset, open_dataset, validate


def test_ids_are_dense_by_row_and_events_sorted_stably(make_log):
    tables = make_log()
    shuffled = replace(
        tables,
        items=tables.items.sample(fraction=1, shuffle=True, seed=3),
        users=tables.users.reverse(),
        events=tables.events.sample(fraction=1, shuffle=True, seed=4),
    )
    dataset = Dataset.from_tables(shuffled)
    assert dataset.items["item"].to_list() == list(range(12)) and dataset.items["item_id"].equals(
        shuffled.items["item_id"]
    )
    assert dataset.users["user_id"].to_list() == [105, 104, 103, 102, 101, 100] and (
        dataset.n_users,
        dataset.n_items,
    ) == (6, 12)
    events = dataset.events
    assert events.columns == ["event", "user", "item", "time", "exposed", "click", "conversion", "matured_at", "price"]
    assert events.dtypes == [
        pl.UInt32,
        pl.UInt32,
        pl.UInt32,
        pl.Int64,
        pl.Boolean,
        pl.Int8,
        pl.Int8,
        pl.Int64,
        pl.Float64,
    ]
    back = events.select(
        dataset.users["user_id"].gather(events["user"]),
        dataset.items["item_id"].gather(events["item"]),
        "time",
        "click",
    )
    # The reference: Python's stable sort by (time, dense user).
    dense = dict(zip(dataset.users["user_id"], dataset.users["user"]))
    rows = shuffled.events.select(
        "user_id", "item_id", pl.col("timestamp").cast(pl.Datetime("us")).cast(pl.Int64), "click"
    ).rows()
    assert back.rows() == sorted(rows, key=lambda row: (row[2], dense[row[0]]))


def test_profile_and_further_columns_are_kept(make_log):
    tables = make_log()
    dataset = Dataset.from_tables(replace(tables, items=tables.items.with_columns(colour=pl.lit("red"))))
    assert dataset.items.columns == [
        "item",
        "item_id",
        "title",
        "category_l1",
        "category_l2",
        "category_l3",
        "price",
        "colour",
    ]
    assert dataset.users.columns == ["user", "user_id", "city"]


def test_save_and_load_give_the_same_bytes(make_log, tmp_path):
    dataset = Dataset.from_tables(make_log())
    dataset.save(tmp_path / "a")
    loaded = Dataset.load(tmp_path / "a")
    loaded.save(tmp_path / "b")
    assert file_hash(tmp_path / "a") == file_hash(tmp_path / "b")
    assert (loaded.name, loaded.domain, loaded.notes) == ("small", "shop", ())
    assert (loaded.history.items == dataset.history.items).all()


def test_a_broken_folder_is_a_clear_error(make_log, tmp_path):
    with pytest.raises(TaijiError, match=r"dataset\.json"):
        Dataset.load(tmp_path)
    Dataset.from_tables(make_log()).save(tmp_path / "a")
    (tmp_path / "a" / "events.parquet").write_bytes(b"PAR1 no longer")
    with pytest.raises(TaijiError, match=r"events\.parquet"):
        Dataset.load(tmp_path / "a")


@pytest.mark.parametrize("depth", [0, 1, 3, 5])
def test_levels_are_those_that_the_source_gave(make_log, tmp_path, depth):
    tables = make_log()
    names = [f"category_l{level + 1}" for level in range(depth)]
    items = tables.items.drop("category_l1").with_columns(pl.lit(None, pl.String).alias(name) for name in names)
    dataset = Dataset.from_tables(replace(tables, items=items))
    dataset.save(tmp_path / "a")
    checked = Dataset.from_tables(validate(validate(replace(tables, items=items))))
    for each in (dataset, open_dataset(tmp_path / "a"), checked, dataset.with_users(dataset.users, dataset.events)):
        assert each.levels == tuple(names)
        assert each.items.columns[3 : 3 + max(depth, 3)] == [f"category_l{level + 1}" for level in range(max(depth, 3))]


def test_a_level_that_is_added_to_validated_tables_is_used(make_log):
    checked = validate(make_log())
    deeper = replace(checked, items=checked.items.with_columns(category_l4=pl.lit("deep")))
    assert Dataset.from_tables(deeper).levels == tuple(f"category_l{level}" for level in range(1, 5))


def test_a_gap_between_levels_is_a_level_without_values(make_log):
    tables = make_log()
    dataset = Dataset.from_tables(replace(tables, items=tables.items.with_columns(category_l5=pl.lit("deep"))))
    assert dataset.levels == tuple(f"category_l{level}" for level in range(1, 6))
    assert dataset.items["category_l4"].null_count() == dataset.n_items


def test_before_keeps_only_events_strictly_before_a_time(make_log):
    dataset = Dataset.from_tables(make_log())
    time = int(dataset.events["time"][len(dataset.events) // 2])
    past = dataset.before(time)
    assert past.events.equals(dataset.events.filter(pl.col("time") < time)) and past.last_time < time
    assert 0 < len(past.history.items) < len(dataset.history.items) and past.items is dataset.items
