"""Times as programs and people write them."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta, timezone

import polars as pl
import pytest

from taiji.data.sources.time_cells import as_times, is_clock, serial_days, time_forms, units_of, with_clock

WHEN = datetime(2023, 7, 22, 4, 36, 20)


@pytest.mark.parametrize(
    ("text", "form", "read"),
    [
        ("2023-07-22 04:36:20", "", WHEN),
        ("2023-07-22T04:36:20", "", WHEN),
        ("2023-07-22 04:36:20 UTC", "", WHEN),
        ("2023-07-22 04:36:20 GMT", "", WHEN),
        ("2023-07-22 04:36:20Z", "", WHEN),
        ("2023-07-22 04:36:20+00", "", WHEN),
        ("2023-07-22 04:36:20 +0000", "", WHEN),
        ("2023-07-22T06:36:20.000+02:00", "", WHEN),
        ("2023-07-21T21:06:20 -07:30", "", WHEN),
        ("2023-07-22 04:36:20.438", "", WHEN + timedelta(milliseconds=438)),
        ("2023-07-22 04:36:20,438", "", WHEN + timedelta(milliseconds=438)),
        ("2023-07-22T04:36:20.123456789Z", "", WHEN + timedelta(microseconds=123456)),
        ("2023-7-22 4:36", "", WHEN.replace(second=0)),
        ("2023-07-21 24:00", "", datetime(2023, 7, 22)),
        ("2023-07-22", "", datetime(2023, 7, 22)),
        ("20230722043620", "%Y%m%d%H%M%S", WHEN),
        ("20230722T043620Z", "%Y%m%dT%H%M%S", WHEN),
        ("22.07.2023 04:36:20 +02:00", "%d.%m.%Y %H:%M:%S", WHEN - timedelta(hours=2)),
        ("22.07.2023, 04:36:20", "%d.%m.%Y, %H:%M:%S", WHEN),
        ("7/22/2023 4:36:20 PM", "%m/%d/%Y %I:%M:%S %p", WHEN + timedelta(hours=12)),
        ("2023-07-22 04:36:20 PM", "%Y-%m-%d %I:%M:%S %p", WHEN + timedelta(hours=12)),
        ("22/Jul/2023:04:36:20 +0000", "%d/%b/%Y:%H:%M:%S", WHEN),
        ("Sat, 22 Jul 2023 04:36:20 GMT", "%a, %d %b %Y %H:%M:%S", WHEN),
        ("Sat Jul 22 04:36:20 2023", "%a %b %d %H:%M:%S %Y", WHEN),
        ("July 22, 2023 4:36 AM", "%B %d, %Y %I:%M %p", WHEN.replace(second=0)),
        ("22-Jul-23", "%d-%b-%y", datetime(2023, 7, 22)),
    ],
)
def test_a_written_form_is_found_and_read(text, form, read):
    column = pl.Series("at", [text] * 3)
    assert time_forms(column) == (form,)
    assert as_times(column, form=form or None).to_list() == [read] * 3


@pytest.mark.parametrize("bad", ["NULL", "0", "9999", "2023-07-", "x"])
def test_a_broken_cell_among_many_is_null(bad):
    column = pl.Series("at", ["2023-07-22 04:36:20"] * 40 + [bad])
    assert time_forms(column) == ("",)
    assert as_times(column).to_list() == [WHEN] * 40 + [None]


def test_cells_of_one_column_may_differ_in_precision_and_zone():
    column = pl.Series("at", ["2023-07-22", "2023-07-22 04:36", "2023-07-22T04:36:20.5Z", "2023-07-22 06:36:20+02:00"])
    day = datetime(2023, 7, 22)
    assert time_forms(column) == ("",)
    assert as_times(column).to_list() == [
        day,
        WHEN.replace(second=0),
        WHEN + timedelta(milliseconds=500),
        WHEN,
    ]


@pytest.mark.parametrize(
    ("cells", "unit", "first"),
    [
        (["1690000580"], "s", WHEN),
        (["1690000580.0"], "s", WHEN),
        (["1690000580.438"], "s", WHEN + timedelta(milliseconds=438)),
        ([1690000580.438], "s", WHEN + timedelta(milliseconds=438)),
        (["1690000580438"], "ms", WHEN + timedelta(milliseconds=438)),
        ([1690000580000001], "us", WHEN + timedelta(microseconds=1)),
        (["1690000580000001999"], "ns", WHEN + timedelta(microseconds=1)),
    ],
)
def test_epochs(cells, unit, first):
    column = pl.Series("at", cells)
    assert units_of(column.cast(pl.Float64)) == (unit,)
    assert as_times(column, unit)[0] == first


def test_serial_days_of_a_spreadsheet():
    days = pl.Series("at", [45129.191898148, 45129.0])
    assert serial_days(days) and not units_of(days)
    assert as_times(days, "excel").to_list() == [WHEN, datetime(2023, 7, 22)]
    assert as_times(days.cast(pl.String), "excel").to_list() == [WHEN, datetime(2023, 7, 22)]


def test_numbers_that_are_no_time_are_null():
    assert as_times(pl.Series(["1690000580", "inf", "abc", "9" * 18]), "s").to_list() == [WHEN, None, None, None]
    assert as_times(pl.Series([10**18, 1690000580]), "s").to_list() == [None, WHEN]


def test_a_date_without_a_declared_form_is_iso_or_none():
    assert as_times(pl.Series(["03/04/2024"])).to_list() == [None]


@pytest.mark.parametrize(
    ("clocks", "second"),
    [
        (["04:36:20", "16:00"], "16:00"),
        ([time(4, 36, 20), time(16)], "16:00:00.000000"),
        ([43620, 160000], "16:00:00"),
        ([436, 1600], "16:00"),
    ],
    ids=["texts", "times", "HMMSS", "HMM"],
)
def test_a_day_and_a_clock_are_one_time(clocks, second):
    clock = pl.Series("time", clocks)
    assert is_clock(clock)
    for days in (["2023-07-22", "2023-07-23"], [date(2023, 7, 22), date(2023, 7, 23)]):
        joined = with_clock(pl.Series("date", days), clock)
        assert joined[1] == f"2023-07-23 {second}"
        assert as_times(joined)[1] == datetime(2023, 7, 23, 16)


def test_hours_are_a_clock_if_the_name_says_so():
    hours = pl.Series("hour", [0, 9, 23])
    assert is_clock(hours, hours=True) and not is_clock(hours)
    joined = with_clock(pl.Series("date", ["2023-07-22"] * 3), hours)
    assert as_times(joined).dt.hour().to_list() == [0, 9, 23]


def test_durations_and_prices_are_no_clock():
    assert not is_clock(pl.Series([4.5, 6.25])) and not is_clock(pl.Series(["99:99:99", "75:00"]))
    assert not is_clock(pl.Series([999999, 888888]))


def test_a_zone_of_a_parquet_column_is_turned_into_utc():
    there = [datetime(2023, 7, 22, 6, 36, 20, tzinfo=timezone(timedelta(hours=2)))]
    assert as_times(pl.Series("at", there)).to_list() == [WHEN]


@pytest.mark.parametrize(
    ("numbers", "clocks"),
    [
        ([0, 61, 20_580, 40_000, 86_399], ["00:00:00", "00:01:01", "05:43:00", "11:06:40", "23:59:59"]),
        ([0, 61, 300, 700, 1439], ["00:00:00", "01:01:00", "05:00:00", "11:40:00", "23:59:00"]),
    ],
    ids=["seconds", "minutes"],
)
def test_numbers_count_since_midnight_where_they_cannot_stand_side_by_side(numbers, clocks):
    clock = pl.Series("clock", numbers)
    assert is_clock(clock)
    times = as_times(with_clock(pl.Series("day", ["20230722"] * 5), clock), form="%Y%m%d %H:%M:%S")
    assert times.dt.strftime("%H:%M:%S").to_list() == clocks


def test_a_duration_is_no_clock_and_one_wrong_minute_changes_no_column():
    assert not is_clock(pl.Series([45, 61, 599, 4000, 90, 75]))
    clock = pl.Series([436, 500, 1159, 1275, 1000, 1001, 1002])
    assert with_clock(pl.Series("day", ["2023-07-22"] * 7), clock).to_list()[:2] == [
        "2023-07-22 04:36",
        "2023-07-22 05:00",
    ]
