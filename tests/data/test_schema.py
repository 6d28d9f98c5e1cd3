from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from taiji.core.errors import TaijiError
from taiji.data.event_columns import EventColumns
from taiji.data.schema import row_list, validate


def broken(tables, table, change):
    return replace(tables, **{table: change(getattr(tables, table))})


def at(column, rows, value):
    """Put a value into some rows of a column."""
    return lambda frame: frame.with_columns(
        pl.when(pl.int_range(pl.len()).is_in(rows)).then(pl.lit(value)).otherwise(column).alias(column)
    )


CASES = {
    "missing column": (
        "events",
        lambda f: f.drop("item_id"),
        ["column is missing", "table events", "column item_id", "user_id, item_id, timestamp, click"],
    ),
    "missing title": ("items", lambda f: f.drop("title"), ["column is missing", "table items", "column title"]),
    "an infinite price": (
        "items",
        lambda f: f.with_columns(price=pl.lit(float("inf"))),
        ["infinite", "table items", "column price", "finite numbers"],
    ),
    "empty table": ("users", lambda f: f.clear(), ["empty", "table users", "0 rows"]),
    "text as time": (
        "events",
        lambda f: f.with_columns(timestamp=pl.lit("yesterday")),
        ["wrong type", "column timestamp", "'yesterday'", "unit"],
    ),
    "numbers as title": (
        "items",
        lambda f: f.with_columns(title=pl.lit(3)),
        ["wrong type", "table items", "column title", "text"],
    ),
    "text as price": (
        "events",
        lambda f: f.with_columns(price=pl.lit("1,50")),
        ["wrong type", "column price", "numbers"],
    ),
    "float label": ("events", lambda f: f.with_columns(click=pl.lit(0.5)), ["wrong type", "column click"]),
    "label of two": ("events", at("click", [2, 4], 2), ["neither 0 nor 1", "column click", "rows 3, 5", "2"]),
    "null id": ("events", at("user_id", [7], None), ["missing", "column user_id", "row 8"]),
    "null click": ("events", at("click", [0], None), ["missing", "column click", "row 1"]),
    "duplicate items": (
        "items",
        at("item_id", [3, 5], "i1"),
        ["Duplicate items", "column item_id", "rows 4, 6", "'i1'"],
    ),
    "duplicate users": ("users", at("user_id", [1], 100), ["Duplicate users", "row 2", "100"]),
    "unknown item": (
        "events",
        at("item_id", [9], "nowhere"),
        ["unknown id", "table events", "column item_id", "row 10", "'nowhere'"],
    ),
    "unknown user": (
        "events",
        at("user_id", list(range(10, 30)), 999),
        ["unknown id", "column user_id", "rows 11, 12, 13, 14, 15 and 15 more", "999"],
    ),
    "id types": (
        "users",
        lambda f: f.with_columns(pl.col("user_id").cast(pl.String)),
        ["different types", "column user_id"],
    ),
    "matured before": (
        "events",
        lambda f: f.with_columns(matured_at=pl.col("timestamp") - timedelta(seconds=1)),
        ["before its event", "column matured_at", "rows 1, 2"],
    ),
    "no frame": ("items", lambda f: [1], ["not a data frame", "table items", "list"]),
}


@pytest.mark.parametrize("case", CASES)
def test_each_fault_is_one_clear_error(make_log, case):
    table, change, said = CASES[case]
    with pytest.raises(TaijiError) as caught:
        validate(broken(make_log(), table, change))
    for words in said:
        assert words in str(caught.value), str(caught.value)


def test_a_conversion_needs_a_click(make_log):
    events = make_log().events.with_columns(click=pl.lit(0, pl.Int8), conversion=pl.lit(0, pl.Int8))
    tables = replace(make_log(), events=at("conversion", [5], 1)(events))
    with pytest.raises(TaijiError, match=r"(?s)has no click.*row 6"):
        validate(tables)


def test_the_file_is_named(make_log):
    with pytest.raises(TaijiError, match=r"table items \(/x/items.csv\)"):
        validate(broken(make_log(), "items", lambda f: f.drop("title")), {"items": "/x/items.csv"})


def test_a_domain_is_the_name_of_a_folder(make_log):
    assert validate(replace(make_log(), domain="second-hand_cars")).domain == "second-hand_cars"
    for wrong in ("../cars", "", "a b"):
        with pytest.raises(TaijiError, match="shop"):
            validate(replace(make_log(), domain=wrong))


def test_optional_columns_are_filled(make_log):
    tables = make_log()
    tables = replace(
        tables,
        items=tables.items.select("item_id", "title"),
        events=tables.events.select("user_id", "item_id", "timestamp", "click"),
    )
    checked = validate(tables)
    assert checked.items.schema["category_l3"] == pl.String and checked.items.schema["price"] == pl.Float64
    events = checked.events
    assert events["exposed"].all() and events["conversion"].is_null().all() and events["price"].is_null().all()
    assert (events["matured_at"] == events["timestamp"]).all()
    assert events.schema["conversion"] == pl.Int8 and events.schema["timestamp"] == pl.Datetime("us")


def test_times_become_naive_utc_microseconds(make_log):
    tables = make_log()
    aware = tables.events.with_columns(
        pl.col("timestamp").dt.replace_time_zone("UTC").dt.convert_time_zone("Asia/Tokyo").dt.cast_time_unit("ms")
    )
    assert (
        validate(replace(tables, events=aware))
        .events["timestamp"]
        .equals(tables.events["timestamp"].cast(pl.Datetime("us")))
    )
    first = validate(replace(tables, events=aware)).events["timestamp"][0]
    assert first.replace(tzinfo=UTC) == aware["timestamp"][0] and isinstance(first, datetime)


def test_a_nan_price_is_no_price(make_log):
    tables = broken(make_log(), "events", lambda f: f.with_columns(price=pl.lit(float("nan"))))
    assert validate(tables).events["price"].is_null().all()


def test_pandas_and_lazy_frames_are_taken(make_log):
    tables = make_log()
    taken = validate(replace(tables, items=tables.items.to_pandas(), events=tables.events.lazy()))
    assert taken.items["item_id"].equals(tables.items["item_id"]) and taken.events.equals(validate(tables).events)


def test_validate_twice_changes_nothing(make_log):
    once = validate(make_log())
    twice = validate(once)
    assert all(getattr(once, name).equals(getattr(twice, name)) for name in ("items", "users", "events"))


def test_row_list():
    assert row_list([4]) == "row 5"
    assert row_list([0, 2]) == "rows 1, 3"
    assert row_list(list(range(7))) == "rows 1, 2, 3, 4, 5 and 2 more"


@pytest.mark.parametrize("name", CASES)
def test_checked_tables_are_not_checked_again_and_replaced_ones_are(make_log, name):
    checked = validate(make_log())
    assert validate(checked) is checked
    table, change, _ = CASES[name]
    with pytest.raises(TaijiError):
        validate(broken(checked, table, change))


def test_a_new_role_is_checked_in_checked_tables(make_log):
    checked = validate(make_log())
    with pytest.raises(TaijiError, match="A column is missing"):
        validate(replace(checked, event_columns=EventColumns(position="place")))


@pytest.mark.parametrize(("table", "name"), [("items", "item"), ("users", "user")])
def test_names_of_row_numbers_are_taken(make_log, table, name):
    tables = make_log()
    frame = getattr(tables, table).with_columns(pl.lit("x").alias(name))
    with pytest.raises(TaijiError, match=f"(?s)row numbers.*column {name}"):
        validate(replace(tables, **{table: frame}))
