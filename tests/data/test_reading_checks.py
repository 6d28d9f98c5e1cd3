"""Checks of the reading report: each finds what it is for, with counts, and is silent about a sound log."""

from __future__ import annotations

import logging

import pytest

from taiji.data.reading_checks import findings, warn
from taiji.data.reading_report import (
    AmountReading,
    ColumnReading,
    FileReading,
    Finding,
    IdReading,
    LabelReading,
    LeftOut,
    ReadingReport,
    TimeReading,
)


def times(**changes):
    return TimeReading(**{"rows": 1000, "first": "2024-01-01", "last": "2024-02-01", "commonest_rows": 3, **changes})


def ids(**changes):
    sound = {"ids": 50, "used": 50, "event_ids": 50, "event_ids_known": 50, "rows": 1000, "rows_known": 1000}
    return IdReading(**{"column": "item_id", "table": "items", "busiest": "7", "busiest_rows": 40, **sound, **changes})


def file(**changes):
    return FileReading(**{"table": "events", "file": "log.csv", "rows": 1000, **changes})


SOUND = {
    "files": (file(),),
    "labels": (LabelReading(name="click", rows=1000, known=1000, mean=0.3),),
    "times": times(),
    "ids": (ids(),),
    "amounts": (AmountReading(table="items", column="price", values=50, negative=0),),
}
COLUMN = ColumnReading(column="p", part="price", values=10, understood=9, examples=("n/a",))


def test_a_sound_log_gives_no_finding():
    assert findings(ReadingReport(**SOUND)) == ()


@pytest.mark.parametrize(
    ("changes", "check", "words"),
    [
        ({"files": (file(left_out=(LeftOut(reason="rows without a title", rows=4),)),)}, "rows left out", "4 rows"),
        ({"files": (file(columns=(COLUMN,)),)}, "unreadable values", "1 of 10 values of column p"),
        ({"files": (file(notes=("ids changed",)),)}, "values changed while reading", "log.csv: ids changed"),
        ({"labels": (LabelReading(name="liked", rows=9, known=0),)}, "label unknown", "unknown for all 9"),
        (
            {"labels": (LabelReading(name="click", rows=90, known=80, mean=0.0),)},
            "label never positive",
            "0 for all 80",
        ),
        (
            {"ids": (ids(rows_known=900, event_ids=60),)},
            "ids not matched",
            "100 of 1,000 events have an unknown item_id: 10 of 60 distinct",
        ),
        ({"ids": (ids(near=2, near_examples=(("07", "7"),)),)}, "ids not matched", "'07' and '7'"),
        ({"ids": (ids(busiest_rows=333),)}, "one id with many events", "'7' has 333 of 1,000 events (33.3%)"),
        ({"times": times(early=5)}, "times outside", "5 of 1,000 events lie before 1990"),
        ({"times": times(late=2)}, "times outside", "2 of 1,000 events lie after tomorrow"),
        ({"times": times(commonest="2024-01-05", commonest_rows=501)}, "one instant", "501 of 1,000"),
        (
            {"amounts": (AmountReading(table="events", column="price", values=9, negative=1),)},
            "negative amounts",
            "1 of 9",
        ),
        ({"repeated": 60}, "repeated events", "60 of 1,000"),
        ({"private": ("email",)}, "contact data", "email"),
        ({"profile": ("age",)}, "profile without time", "(age)"),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "log",
)
def test_each_check_reports_its_finding_with_counts(changes, check, words):
    (found,) = findings(ReadingReport(**{**SOUND, **changes}))
    assert found.check == check
    assert words in found.found


def test_an_id_that_is_one_of_few_is_not_remarked_on():
    few = ids(used=4, event_ids=4, event_ids_known=4, busiest_rows=400)
    assert findings(ReadingReport(**{**SOUND, "ids": (few,)})) == ()


def test_findings_are_logged_as_warnings(caplog):
    with caplog.at_level(logging.WARNING, logger="taiji"):
        warn(ReadingReport(findings=(Finding(check="x", found="Found 3.", ask="Why?"),)))
        warn(None)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [("WARNING", "Found 3. Why?")]


@pytest.mark.parametrize(("understood", "asked"), [(98, "Correct these cells"), (60, "Is at the right column")])
def test_a_few_cells_that_are_not_understood_do_not_put_the_column_in_doubt(understood, asked):
    column = ColumnReading(column="at", part="timestamp", values=100, understood=understood, first=(), examples=())
    file = FileReading(table="events", file="log.csv", rows=100, columns=(column,), left_out=(), notes=())
    (finding,) = findings(ReadingReport(files=(file,)))
    assert finding.ask.startswith(asked)
