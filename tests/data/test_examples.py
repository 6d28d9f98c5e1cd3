from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from taiji.core.errors import TaijiError
from taiji.data import PERIODS, Dataset, ExampleSettings, make_examples, time_split
from taiji.data.examples import next_sets

ALL = ExampleSettings(per_user=None, min_history=2)


@pytest.fixture
def dataset(make_log):
    return Dataset.from_tables(make_log(users=8, items=60, rows=1200, seed=1))


def reference(dataset, split, period, target, min_history):
    """Every allowed (user, as_of, item), by the definition."""
    start, end = split.interval(period)
    clicks = dataset.events.filter(pl.col("click") == 1).select("user", "item", "time").rows()
    found = set()
    for user, item, time in clicks:
        past = [row for row in clicks if row[0] == user and row[2] < time]
        new = all(row[1] != item for row in past)
        if start <= time < end and len(past) >= min_history and (new or target == "next_purchase"):
            found.add((user, time, item))
    return found


@pytest.mark.parametrize("target", ["next_new_item", "next_purchase"])
def test_examples_are_those_of_the_definition(dataset, target):
    split = time_split(dataset)
    for period in PERIODS:
        allowed = reference(dataset, split, period, target, 2)
        try:
            frame = make_examples(dataset, split, period, ALL.model_copy(update={"target": target}), 0)
        except TaijiError:
            assert not allowed
            continue
        chosen = set(frame.select("user", "as_of", "target").rows())
        assert chosen <= allowed and {row[:2] for row in chosen} == {row[:2] for row in allowed}
        assert len(chosen) == len({row[:2] for row in chosen})


def test_columns_and_order(dataset):
    frame = make_examples(dataset, time_split(dataset), "llm", ALL, 0)
    assert frame.columns == ["example", "user", "as_of", "target", "period", "user_id", "target_id"]
    assert frame.dtypes == [pl.String, pl.UInt32, pl.Int64, pl.UInt32, pl.String, pl.String, pl.String]
    assert frame["example"].is_unique().all() and frame.equals(frame.sort("as_of", "user"))
    row = frame.row(0, named=True)
    assert row["example"] == f"{row['user_id']}@{row['as_of']}" and row["period"] == "llm"
    assert (
        row["user_id"] == str(dataset.users["user_id"][row["user"]])
        and row["target_id"] == dataset.items["item_id"][row["target"]]
    )


def test_caps_choose_from_the_whole_by_seed(dataset):
    split = time_split(dataset)
    settings = ALL.model_copy(update={"target": "next_purchase"})
    whole = set(make_examples(dataset, split, "llm", settings, 0)["example"])
    capped = make_examples(dataset, split, "llm", settings.model_copy(update={"per_user": 2}), 0)
    assert set(capped["example"]) < whole and capped["user"].value_counts()["count"].max() == 2
    assert capped["user"].n_unique() == 8
    limited = make_examples(dataset, split, "llm", settings.model_copy(update={"per_user": 2, "limit": 5}), 0)
    assert len(limited) == 5 and set(limited["example"]) < set(capped["example"])
    again = make_examples(dataset, split, "llm", settings.model_copy(update={"per_user": 2}), 0)
    other = make_examples(dataset, split, "llm", settings.model_copy(update={"per_user": 2}), 1)
    assert again.equals(capped) and not other.equals(capped)


def test_the_seeded_choice_is_even_over_time(dataset):
    """One example a user is as often in the first as in the second half of the period's candidates."""
    split = time_split(dataset)
    settings = ExampleSettings(target="next_purchase", per_user=1, min_history=1)
    whole = make_examples(dataset, split, "llm", settings.model_copy(update={"per_user": None}), 0)
    middles = dict(whole.group_by("user").agg(pl.col("as_of").median()).rows())
    late = [
        time > middles[user]
        for seed in range(60)
        for user, time in make_examples(dataset, split, "llm", settings, seed).select("user", "as_of").rows()
    ]
    assert abs(np.mean(late) - 0.5) < 4 * 0.5 / np.sqrt(len(late)) + 0.02


def test_nothing_left_is_a_clear_error(dataset):
    with pytest.raises(TaijiError, match=r"(?s)'reward'.*10000 interactions.*min_history"):
        make_examples(dataset, time_split(dataset), "reward", ExampleSettings(min_history=10_000), 0)


def test_sets_of_next_items_are_those_of_the_definition(dataset):
    split = time_split(dataset)
    frame = make_examples(dataset, split, "llm", ALL, 0)
    end = split.interval("llm")[1]
    clicks = dataset.events.filter(pl.col("click") == 1).select("user", "item", "time").rows()
    sets = next_sets(dataset, frame, [end] * len(frame), 6).to_list()
    for (user, as_of, target), items in zip(frame.select("user", "as_of", "target").iter_rows(), sets):
        had = {item for who, item, time in clicks if who == user and time < as_of}
        coming = list(dict.fromkeys(i for who, i, time in clicks if who == user and as_of <= time < end))
        rest = [item for item in coming if item != target]
        ordered = [target, *(i for i in rest if i not in had), *(i for i in rest if i in had)]
        assert items == ordered[:6]
    assert {len(items) for items in sets} >= {6}


def test_what_comes_after_the_period_is_in_no_set(dataset):
    split = time_split(dataset)
    frame = make_examples(dataset, split, "llm", ALL, 0)
    ends, history = [split.interval("llm")[1]] * len(frame), dataset.history
    changed = replace(history, items=np.where(history.times >= ends[0], 0, history.items))
    assert not np.array_equal(changed.items, history.items)
    known = next_sets(dataset, frame, ends, 6)
    assert next_sets(SimpleNamespace(history=changed), frame, ends, 6).equals(known)
    assert not next_sets(dataset, frame, [2**62] * len(frame), 6).equals(known)
