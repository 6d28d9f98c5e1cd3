"""Further columns of events: what each role allows, that they survive storing, and when a label counts."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from tests.data.conftest import small_log

from taiji.core.errors import ArtifactError, ConfigError, InputError
from taiji.data import PERIODS, Dataset, exposures, open_dataset, scan_exposures, time_split
from taiji.data.event_columns import EventColumns
from taiji.data.schema import Tables, validate
from taiji.data.sources.ratings import with_non_clicks
from taiji.data.tasks import CLICK, CONVERSION, Task

COLUMNS = EventColumns(
    labels=(
        Task(name="watch_seconds", kind="duration"),
        Task(name="shares", kind="count", given="click"),
        Task(name="stars", kind="ordinal", levels=5),
        Task(name="satisfied", kind="survey"),
        Task(name="returned", given="conversion", delayed=True),
    ),
    behaviour="action",
    context=("scenario", "load"),
    bias=("size",),
    list_id="page",
    position="rank",
    propensity="chance",
)


def rich_log(**options) -> Tables:
    tables = small_log(**options)
    random, rows = np.random.default_rng(7), len(tables.events)
    click = tables.events["click"].to_numpy()
    events = tables.events.with_columns(
        watch_seconds=pl.Series(random.random(rows) * 60 * click),
        shares=pl.Series(random.integers(0, 3, rows)),
        stars=pl.Series(
            [None if random.random() < 0.5 else int(s) for s in random.integers(0, 5, rows)], dtype=pl.Int8
        ),
        satisfied=pl.Series([1.0 if v < 0.1 else 0.0 if v < 0.2 else None for v in random.random(rows)]),
        returned=tables.events["conversion"],
        action=pl.Series(np.where(click, "buy", "view")),
        scenario=pl.Series(np.where(random.random(rows) < 0.5, "home", "search")),
        load=pl.Series(random.random(rows)),
        size=pl.Series(random.integers(1, 4, rows)),
        page=pl.Series([f"p{k // 4}" for k in range(rows)]),
        rank=pl.Series(np.arange(rows) % 4),
        chance=pl.Series(0.5 + random.random(rows) / 2),
        ignored=pl.lit("?"),
    )
    return replace(tables, events=events, event_columns=COLUMNS)


def test_a_dataset_keeps_the_columns_that_have_a_role_and_tells_its_tasks():
    dataset = Dataset.from_tables(rich_log())
    assert tuple(dataset.events.columns[-12:]) == COLUMNS.names and "ignored" not in dataset.events.columns
    kinds = dict(zip(COLUMNS.names, dataset.events.dtypes[-12:]))
    assert kinds["watch_seconds"] == pl.Float64 and kinds["shares"] == pl.Int64 and kinds["stars"] == pl.Int64
    assert kinds["satisfied"] == kinds["returned"] == pl.Int8 and kinds["rank"] == pl.Int32
    assert [task.name for task in dataset.tasks] == [
        "click", "conversion", "watch_seconds", "shares", "stars", "satisfied", "returned",
    ]  # fmt: skip
    assert dataset.tasks[:2] == (CLICK, CONVERSION) and dataset.context == ("scenario", "load")


def test_conversion_is_a_task_where_the_log_knows_it():
    tables = small_log()
    assert Dataset.from_tables(tables).tasks == (CLICK, CONVERSION)
    without = replace(tables, events=tables.events.drop("conversion"))
    assert Dataset.from_tables(without).tasks == (CLICK,)
    declared = EventColumns(labels=(Task(name="kept", given="conversion"),))
    with pytest.raises(ConfigError, match="kept"):
        _ = Dataset.from_tables(
            replace(without, events=without.events.with_columns(kept=1), event_columns=declared)
        ).tasks


def test_columns_survive_storing_in_memory_and_on_disk(tmp_path):
    dataset = Dataset.from_tables(rich_log())
    dataset.save(tmp_path / "a")
    disk, loaded = open_dataset(tmp_path / "a"), Dataset.load(tmp_path / "a")
    split = time_split(dataset)
    for other in (disk, loaded, dataset.with_users(dataset.users, dataset.events)):
        assert other.event_columns == dataset.event_columns and other.tasks == dataset.tasks
        assert exposures(other, split, "ranker").equals(exposures(dataset, split, "ranker"))


def test_other_users_events_need_not_have_the_further_columns():
    dataset = Dataset.from_tables(rich_log())
    fixed = dataset.events.columns[: -len(COLUMNS.names)]
    made = dataset.with_users(dataset.users, dataset.events.select(fixed))
    assert made.events.columns == dataset.events.columns and made.events.dtypes == dataset.events.dtypes
    assert all(made.events[name].null_count() == len(made.events) for name in COLUMNS.names)
    split = time_split(dataset)
    assert exposures(made, split, "test").select(fixed[:3]).equals(exposures(dataset, split, "test").select(fixed[:3]))


def test_a_dataset_of_another_format(tmp_path):
    """Format 1 lacks the further columns and is read; one that is not known is not."""
    dataset = Dataset.from_tables(small_log())
    dataset.save(tmp_path / "a")
    about = json.loads((tmp_path / "a" / "dataset.json").read_text())
    assert about.pop("format") == 2 and about.pop("event_columns")["labels"] == []
    assert about.pop("levels") == ["category_l1"]
    (tmp_path / "a" / "dataset.json").write_text(json.dumps({**about, "format": 1}))
    for read in (Dataset.load, open_dataset):
        assert read(tmp_path / "a").event_columns == dataset.event_columns
        assert len(read(tmp_path / "a").levels) == 3, "as all datasets had"
    (tmp_path / "a" / "dataset.json").write_text(json.dumps({**about, "format": 3}))
    with pytest.raises(ArtifactError, match="unknown format"):
        Dataset.load(tmp_path / "a")


def test_exposures_carry_labels_and_what_was_known_at_the_display():
    dataset = Dataset.from_tables(rich_log())
    split = time_split(dataset)
    fixed = ["event", "user", "item", "time", "click", "conversion", "price"]
    for period in PERIODS:
        start, end = split.interval(period)
        whole = dataset.events.filter(pl.col("time").is_between(start, end, closed="left"))
        rows = exposures(dataset, split, period)
        assert rows.columns == [*fixed, *(name for name in COLUMNS.names if name != "action")]
        mature = (whole["matured_at"] < end).to_numpy()
        assert 0 < mature.sum() < len(mature)
        scanned = scan_exposures(dataset, split, period).collect()
        for found in (rows, scanned):
            for name in ("conversion", "returned"):
                np.testing.assert_array_equal(found[name].is_not_null().to_numpy(), mature)
            for name in ("watch_seconds", "shares", "stars", "satisfied", "scenario", "load", "size", "page", "rank"):
                assert found[name].equals(whole[name])


def test_planted_events_change_no_earlier_row_of_the_new_columns():
    tables = rich_log(rows=400, items=40)
    dataset = Dataset.from_tables(tables)
    split = time_split(dataset)
    for place in (120, 250, 399):
        first = tables.events["timestamp"][place]
        new = validate(tables).events.sample(20, seed=place).with_columns(
            timestamp=first + timedelta(hours=1), matured_at=first + timedelta(hours=1), watch_seconds=9999.0,
            scenario=pl.lit("planted"), load=99.0, returned=pl.lit(None, pl.Int8), size=99, page=pl.lit("planted"),
        )  # fmt: skip
        changed = Dataset.from_tables(
            replace(tables, events=pl.concat([new, validate(tables).events], how="vertical_relaxed"))
        )
        as_of = int(first.timestamp() * 1e6) if first.tzinfo else int(pl.Series([first]).dt.epoch("us")[0])
        for period in PERIODS:
            if split.interval(period)[0] <= as_of:
                before, after = (
                    exposures(each, split, period).filter(pl.col("time") <= as_of).drop("event")
                    for each in (dataset, changed)
                )
                assert after.equals(before) and "planted" not in after["scenario"]


def test_sampled_non_clicks_share_the_request_and_know_nothing_else():
    tables = validate(rich_log(rows=300, items=60))
    clicks = replace(tables, events=tables.events.filter(pl.col("click") == 1))
    made = with_non_clicks(clicks, per_row=2, seed=3, keep_users=None).events
    invented = made.filter(pl.col("click") == 0)
    assert len(invented) > 50
    for name in ("watch_seconds", "shares", "stars", "satisfied", "returned", "action", "size", "rank", "chance"):
        assert invented[name].null_count() == len(invented)
    beside = clicks.events.select("user_id", "timestamp", "page", "scenario", "load").unique()
    joined = invented.join(beside, on=["user_id", "timestamp", "page", "scenario", "load"], how="semi")
    assert len(joined) == len(invented)
    assert validate(replace(clicks, events=made)).events.equals(made)


def at(column, rows, value):
    return lambda events: events.with_columns(
        pl.when(pl.int_range(pl.len()).is_in(rows)).then(pl.lit(value)).otherwise(column).alias(column)
    )


WRONG = {
    "negative count": (at("shares", [3], -1), ["column shares", "row 4", "count", "-1"]),
    "half a count": (at("shares", [3, 5], 1.5), ["column shares", "rows 4, 6", "an integer", "1.5"]),
    "negative duration": (at("watch_seconds", [0], -0.5), ["column watch_seconds", "row 1", "duration", "-0.5"]),
    "endless duration": (at("watch_seconds", [0], float("inf")), ["column watch_seconds", "row 1", "inf"]),
    "grade too high": (at("stars", [9], 5), ["column stars", "row 10", "0 to 4", "5", "grades: [1, 2, 3, 4, 5]"]),
    "grade below": (at("stars", [9], -1), ["column stars", "row 10", "-1"]),
    "survey of two": (at("satisfied", [2], 2.0), ["column satisfied", "row 3", "0 or 1", "2.0"]),
    "binary of two": (at("returned", [2], 2), ["column returned", "row 3", "0 or 1"]),
    "impossible": (at("chance", [4], 0.0), ["column chance", "row 5", "(0, 1]", "0.0"]),
    "more than certain": (at("chance", [4], 1.01), ["column chance", "row 5", "1.01"]),
    "negative position": (at("rank", [8], -1), ["column rank", "row 9", "position"]),
    "text as duration": (lambda e: e.with_columns(watch_seconds=pl.lit("long")), ["wrong type", "'long'", "duration"]),
    "list as context": (lambda e: e.with_columns(scenario=pl.lit([1])), ["wrong type", "column scenario"]),
    "number as list": (lambda e: e.with_columns(page=pl.lit(0.5)), ["wrong type", "column page", "integers or text"]),
    "missing": (lambda e: e.drop("rank"), ["column is missing", "column rank", "declared columns"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_each_value_that_a_role_does_not_allow_is_a_clear_error(case):
    change, words = WRONG[case]
    tables = rich_log()
    with pytest.raises(InputError) as caught:
        validate(replace(tables, events=change(tables.events)), {"events": "/x/log.csv"})
    for word in (*words, "table events (/x/log.csv)"):
        assert word in str(caught.value), str(caught.value)


def test_unknown_values_are_nulls_whatever_the_type():
    tables = rich_log()
    events = tables.events.with_columns(
        watch_seconds=pl.lit(float("nan")), satisfied=pl.lit(None), stars=pl.lit(None, pl.Float32), rank=pl.lit(None)
    )
    checked = validate(replace(tables, events=events)).events
    for name in ("watch_seconds", "satisfied", "stars", "rank"):
        assert checked[name].null_count() == len(checked)


ROLES = {
    "fixed name": (EventColumns(context=("click",)), "click"),
    "a name inside": (EventColumns(bias=("user",)), "user"),
    "two roles": (EventColumns(context=("rank",), position="rank"), "rank"),
    "label and context": (EventColumns(labels=(Task(name="cart"),), context=("cart",)), "cart"),
}


@pytest.mark.parametrize("case", ROLES)
def test_a_column_has_one_role(case):
    columns, name = ROLES[case]
    with pytest.raises(ConfigError, match=rf"(?s)two roles.*column {name}"):
        validate(replace(small_log(), event_columns=columns))


def test_a_prediction_cannot_have_the_name_of_a_column():
    label = Task(name="liked", given="click", joint="event")
    with pytest.raises(ConfigError, match="reserved name"):
        EventColumns(labels=(label,)).check("labels")
    with pytest.raises(ConfigError, match="two roles"):
        EventColumns(labels=(Task(name="ids"),)).check("labels")
