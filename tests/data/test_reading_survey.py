"""Survey of checked tables: the counts that the reading report gives, from a log made for them."""

from __future__ import annotations

from datetime import datetime, timedelta

import polars as pl

from taiji.data import Tables, validate
from taiji.data.reading_survey import surveyed

NOW = datetime(2024, 6, 1)


def made(**changes):
    days = [
        datetime(1970, 1, 1),
        datetime(2024, 1, 1),
        datetime(2024, 1, 1),
        datetime(2024, 5, 1),
        NOW + timedelta(days=9),
    ]
    events = {
        "user_id": ["a", "a", "a", "b", "b"],
        "item_id": [1, 1, 1, 2, 1],
        "timestamp": days,
        "click": [1, 0, 0, 1, 1],
    }
    prices = {"price": [2.0, 3.0, 3.0, -1.0, None]}
    tables = Tables(
        pl.DataFrame({"item_id": [1, 2, 3], "title": ["x", "y", "z"]}),
        pl.DataFrame({"user_id": ["a", "b"], "age": [1, 2]}),
        pl.DataFrame({**events, **prices, "conversion": [1, None, None, 0, None], **changes}),
    )
    return surveyed(validate(tables), NOW)


def test_counts_are_those_of_the_log():
    report = made().reading
    assert report is not None
    assert [(label.name, label.known, label.mean) for label in report.labels] == [
        ("click", 5, 0.6),
        ("conversion", 2, 0.5),
    ]
    times = report.times
    assert (times.first, times.last) == ("1970-01-01T00:00:00", "2024-06-10T00:00:00")
    assert (times.early, times.late, times.commonest, times.commonest_rows) == (1, 1, "2024-01-01T00:00:00", 2)
    items, users = report.ids
    assert (items.ids, items.used, items.busiest, items.busiest_rows) == (3, 2, "1", 4)
    assert (users.ids, users.used, users.busiest, users.busiest_rows) == (2, 2, "a", 3)
    assert [(amount.table, amount.values, amount.negative) for amount in report.amounts] == [("events", 4, 1)]
    assert (report.profile, report.repeated) == (("age",), 1)
    assert {finding.check for finding in report.findings} == {
        "times outside",
        "negative amounts",
        "profile without time",
    }


def test_a_report_that_is_complete_is_kept():
    tables = made()
    assert surveyed(tables) is tables
