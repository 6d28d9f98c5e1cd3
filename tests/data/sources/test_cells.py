"""Cells as the mapping takes them: broken ones stop the reading or are counted with their place, missing ones decide
nothing."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from taiji.core.errors import ConfigError, InputError
from taiji.data.reading_report import Reading
from taiji.data.sources.cells import Cells
from taiji.data.sources.column_mapping import FileMapping, TimeMapping
from taiji.data.sources.label_rules import parse_rule

NAN = float("nan")


def cells_of(unusable="error", numbers=None, **columns):
    reading = Reading()
    frame = pl.DataFrame(columns, strict=False)
    reading.file("events", "log.csv", len(frame))
    plan = FileMapping(file="log.csv", numbers=numbers or {})
    return Cells("events", frame, Path("log.csv"), plan, unusable, reading)


def label(rule, **columns):
    return cells_of(**columns).label(parse_rule(rule), "click").to_list()


@pytest.mark.parametrize(
    ("rule", "columns", "values"),
    [
        ("rating >= 4", {"rating": [5.0, NAN, None, 3.0]}, [1, None, None, 0]),
        ("rating < 4", {"rating": [5.0, NAN, None, 3.0]}, [0, None, None, 1]),
        ("rating != 4", {"rating": [4.0, NAN, None, 3.0]}, [0, None, None, 1]),
        ("not rating >= 4", {"rating": [5.0, NAN, None, 3.0]}, [0, None, None, 1]),
        ("rating in (4, 5)", {"rating": [5.0, NAN, None, 3.0]}, [1, None, None, 0]),
        ("rating >= 4", {"rating": ["5", "NaN", "", "3", "n/a"]}, [1, None, None, 0, None]),
        ("rating not in (4, 5)", {"rating": ["5", "NaN", "", "3"]}, [0, None, None, 1]),
        ("action == buy", {"action": ["buy", " buy ", "view", "", None]}, [1, 1, 0, None, None]),
        ("action != buy", {"action": ["buy", "view", "", None]}, [0, 1, None, None]),
        ("action in (buy, pay)", {"action": ["buy", "pay", "view", ""]}, [1, 1, 0, None]),
        ("click == 1 or purchase == 1", {"click": [1, 0, 0, None], "purchase": [0, 1, 0, 1]}, [1, 1, 0, 1]),
        ("click and purchase", {"click": ["Y", "Y", "N", ""], "purchase": ["N", "Y", "Y", "Y"]}, [0, 1, 0, None]),
        ("not not_clicked", {"not_clicked": [0, 1, None]}, [1, 0, None]),
        ("mark is not null", {"mark": ["1", "", "n/a", None]}, [1, 0, 0, 0]),
        ("mark is null", {"mark": [1.0, NAN, None]}, [0, 1, 1]),
        ("seen == True", {"seen": [True, False, None]}, [1, 0, None]),
        ("seen == 1", {"seen": [True, False, None]}, [1, 0, None]),
        ("seen == 1", {"seen": ["true", "False", ""]}, [1, 0, None]),
        ("code == '4'", {"code": [4, 5]}, [1, 0]),
        ("code == '4'", {"code": [4.0, 5.0]}, [1, 0]),
        ("code == '4'", {"code": ["4", "5"]}, [1, 0]),
        ("code in (007, buy)", {"code": ["buy", "007", "7", "view"]}, [1, 1, 0, 0]),
        ("code not in (1000001, skip)", {"code": ["1000001", "skip", "buy"]}, [0, 0, 1]),
        ("clicked", {"clicked": ["x", "", None]}, [1, 0, 0]),
    ],
)
def test_a_label_and_what_is_not_known(rule, columns, values):
    assert label(rule, **columns) == values


@pytest.mark.parametrize(
    ("rule", "columns", "words"),
    [
        ("clicked", {"clicked": ["yes", "no", "maybe"]}, ["clicked", "row 3", "'maybe'", "clicked == 'yes'"]),
        ("clicked", {"clicked": [1, 2]}, ["neither 0 nor 1", "clicked", "row 2"]),
        ("action == Buy", {"action": ["buy", "view"]}, ["occurs in no row", "'buy'", "'Buy'", "action"]),
        ("stars == high", {"stars": [1, 2]}, ["compares a column of numbers with a text", "stars", "'high'"]),
        ("seen == often", {"seen": [True, False]}, ["true and false", "'often'"]),
        ("stars >= 4", {"stars": ["5", "two"]}, ["log.csv", "column stars", "row 2", "'two'", "unusable: drop"]),
        ("stars >= 4", {"stars": ["4,5", "3,0"]}, ["column stars", "rows 1, 2", 'numbers: {stars: "1234,50"}']),
    ],
)
def test_a_rule_that_the_column_does_not_fit_is_one_message(rule, columns, words):
    with pytest.raises(InputError) as told:
        label(rule, **columns)
    for word in words:
        assert word in str(told.value), str(told.value)


def test_a_constant_that_occurs_in_no_row_is_reported():
    cells = cells_of(action=["buy", "view"])
    assert cells.label(parse_rule("action == refund"), "click").to_list() == [0, 0]
    assert "'refund', which occurs in no row (the values are 'buy', 'view')" in cells.reading.report().files[0].notes[0]


def test_broken_cells_are_counted_with_their_place_and_null():
    cells = cells_of("drop", price=["1.5", "-2", "abc", "inf", "", "NaN"])
    assert cells.number("price", "price", least=0).to_list() == [1.5, None, None, None, None, None]
    told = cells.reading.report().files[0].columns[0]
    assert (told.column, told.part, told.values, told.understood) == ("price", "price", 4, 1)
    assert told.first == (2, 3, 4) and told.examples == ("-2", "abc", "inf")


def test_a_column_in_which_nothing_is_understood_always_stops():
    with pytest.raises(InputError, match="column price, rows 1, 2"):
        cells_of("drop", price=["abc", "def"]).number("price", "price")


def test_columns_of_one_file_may_write_numbers_differently():
    cells = cells_of(numbers={"price": "1.234,50"}, price=["€ 1.299,00", "1.000"], rating=["4.5", "3.0"])
    assert cells.number("price", "price").to_list() == [1299, 1000]
    assert cells.number("rating", "rating").to_list() == [4.5, 3]


def test_a_form_for_a_column_that_is_not_read_is_refused():
    with pytest.raises(ConfigError, match="prise"):
        cells_of(numbers={"prise": "1,234.50"}, price=["1"])


@pytest.mark.parametrize(
    "days", [["2023-07-22", "2023-07-23", ""], [datetime(2023, 7, 22), datetime(2023, 7, 23), None]]
)
def test_day_and_clock_make_the_time(days):
    cells = cells_of(date=days, time=["04:36:20", "16:00:00", "05:00:00"])
    times = cells.time(TimeMapping(column="date", clock="time"), "timestamp")
    assert times.to_list() == [datetime(2023, 7, 22, 4, 36, 20), datetime(2023, 7, 23, 16), None]


def test_a_clock_that_is_none_is_named():
    with pytest.raises(InputError, match=r"column date, row 2"):
        cells_of(date=["2023-07-22", "2023-07-22"], time=["04:36", "noon"]).time(
            TimeMapping(column="date", clock="time"), "timestamp"
        )


def test_a_wrong_date_format_is_reported_with_the_right_one():
    with pytest.raises(InputError, match=r"%d\.%m\.%Y"):
        cells_of(at=["22.07.2023", "23.07.2023"]).time(TimeMapping(column="at"), "timestamp")


def test_grades_of_words_and_large_numbers():
    cells = cells_of(code=["low", "1234567", "1.5"])
    assert cells.grades("code", "code", ("low", 1234567, 1.5)).to_list() == [0, 1, 2]


def test_grades_that_are_not_listed_are_counted():
    cells = cells_of("drop", stars=["1", "5", "7", ""])
    assert cells.grades("stars", "stars", (1, 5)).to_list() == [0, 1, None, None]
    assert cells.reading.report().files[0].columns[0].examples == ("7",)
