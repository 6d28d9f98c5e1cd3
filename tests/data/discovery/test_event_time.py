"""How the times of a log are written, whether a second column tells the time of day, and times that cannot be."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from taiji.data.discovery.event_time import event_time
from taiji.data.discovery.table_files import Table


def look(column, answers=None, **columns):
    table = Table(Path("log.csv"), pl.DataFrame(columns))
    found = event_time(table, table.columns[column].understood, answers or {}, {column})
    return found, {key.rpartition(".")[2]: guess.value for key, guess in found.guesses.items()}


DAYS = ["2023-07-22", "2023-07-23", "2023-07-31"]


@pytest.mark.parametrize(
    ("columns", "proposed"),
    [
        ({"date": DAYS, "time": ["04:36:20", "05:00:00", "23:59:59"]}, {"clock": "time"}),
        ({"date": DAYS, "hour": ["4", "0", "23"]}, {"clock": "hour"}),
        ({"date": DAYS, "c4": ["04:36:20", "05:00:00", "23:59:59"]}, {"clock": "c4"}),
        ({"date": DAYS, "dwell": ["04:36:20", "05:00:00", "23:59:59"]}, {}),
        ({"date": DAYS, "c4": ["00:36:20", "00:00:10", "01:59:59"]}, {}),
        ({"date": DAYS, "time": ["4:36 PM", "5:00 AM", "1:00 AM"]}, {"clock": "time", "format": "%Y-%m-%d %I:%M %p"}),
        (
            {"date": ["22.07.2023", "23.07.2023", "31.07.2023"], "Uhrzeit": ["04:36", "05:00", "23:59"]},
            {"clock": "Uhrzeit", "format": "%d.%m.%Y %H:%M"},
        ),
        (
            {"date": [20230722, 20230723, 20230731], "time": [43620, 50000, 235959]},
            {"clock": "time", "format": "%Y%m%d %H:%M:%S"},
        ),
        ({"date": DAYS, "minutes": ["04:36", "05:00", "23:59"]}, {}),
        ({"date": ["2023-07-22 01:00"] * 3, "time": ["04:36", "05:00", "23:59"]}, {}),
        ({"date": DAYS, "watch_time": [12.5, 3.0, 4.0]}, {}),
    ],
)
def test_day_and_clock_are_joined(columns, proposed):
    assert look("date", **columns)[1] == proposed


def test_the_clock_can_be_decided():
    columns = {"date": DAYS, "minutes": ["04:36", "05:00", "23:59"]}
    assert look("date", {"events.timestamp.clock": "minutes"}, **columns)[1] == {"clock": "minutes"}
    columns = {"date": DAYS, "time": ["04:36", "05:00", "23:59"]}
    assert look("date", {"events.timestamp.clock": "null"}, **columns)[1] == {}


@pytest.mark.parametrize("bad", ["0", "9999", "253402300799"])
def test_times_that_no_event_has_are_named(bad):
    found, proposed = look("timestamp", timestamp=["1690000580"] * 40 + [bad])
    assert proposed == {"unit": "s"}
    assert "log.csv: 1 of 41 times in timestamp" in found.doubts[0] and f"row 41: {bad} is" in found.doubts[0]


def test_dates_that_read_both_ways_are_asked_about():
    found, proposed = look("date", date=["01/02/2024", "03/04/2024"], time=["04:36", "05:00"])
    assert proposed == {"clock": "time"} and found.question is not None
    assert {choice.value for choice in found.question.choices} == {"%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M"}


def test_serial_days_need_a_name_that_says_time():
    days = ["45129.191898", "45130.5"]
    assert look("time", time=days)[1] == {"unit": "excel"}
    assert look("amount", amount=days)[1] == {}


def test_seconds_of_the_day_are_joined_and_missing_times_of_day_are_reported():
    days = [20230722, 20230723] * 10
    found, proposed = look("day", day=days, second_of_day=[4000 * k + 61 for k in range(20)])
    assert proposed == {"clock": "second_of_day", "format": "%Y%m%d %H:%M:%S"} and not found.doubts
    found, proposed = look("day", day=days, watch_seconds=[61 * k for k in range(20)])
    assert "clock" not in proposed and found.doubts[0].startswith("day holds days without a time of day")


def test_a_column_of_time_zones_is_reported():
    found, _ = look("at", at=["2023-07-22 01:00:00", "2023-07-23 02:00:00"], tz=["Europe/Berlin", "America/New_York"])
    assert found.doubts[0].startswith("tz holds time zones (America/New_York, Europe/Berlin)")
    assert not look("at", at=["2023-07-22 01:00:00", "2023-07-23 02:00:00"], kind=["a", "b"])[0].doubts
