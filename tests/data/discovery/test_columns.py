"""Facts about columns, and every way a value can be a time."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl
import pytest

from taiji.data.discovery.columns import facts
from taiji.data.sources.time_cells import CLOCKS, DAYS

MOMENTS = [
    datetime(2023, 3, 28, 7, 5, 9, tzinfo=UTC),
    datetime(2024, 12, 31, 23, 59, 1, tzinfo=UTC),
    datetime(2024, 2, 29, 0, 0, 0, tzinfo=UTC),
]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "2", "30"], "integer"),
        (["007", "010"], "text"),
        (["18446744073709551001", "18446744073709551002"], "text"),
        (["1.5", "-2"], "number"),
        (["1,5", "2"], "number"),
        (["1.234,50", "7,00"], "number"),
        (["0", "1", "1"], "flag"),
        (["true", "False", ""], "flag"),
        ([True, False, None], "flag"),
        ([1.0, 0.0], "flag"),
        (["oat milk", "rye"], "text"),
        ([["a"], ["b"]], "list"),
        ([MOMENTS[0]], "time"),
        ([], "text"),
        (["", " "], "text"),
    ],
)
def test_kind(values, kind):
    assert facts(pl.Series("x", values, dtype=pl.String if not values else None)).kind == kind


def test_decimal_commas_are_noticed():
    assert facts(pl.Series("x", ["1,5"])).form == "1234,50"
    assert facts(pl.Series("x", ["1.5"])).form == "1234.50"


@pytest.mark.parametrize(("unit", "factor"), [("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)])
@pytest.mark.parametrize("text", [False, True])
def test_epoch_units(unit, factor, text):
    numbers = [int(moment.timestamp()) * factor for moment in MOMENTS]
    assert facts(pl.Series("x", [str(n) for n in numbers] if text else numbers)).units == (unit,)


@pytest.mark.parametrize("day", [day for day in DAYS if "%y" not in day])
@pytest.mark.parametrize("clock", [clock for clock in CLOCKS if "%.f" not in clock])
def test_every_written_form_is_found_alone(day, clock):
    """The 31st tells day and month apart, so one form is left."""
    column = facts(pl.Series("x", [moment.strftime(day + clock) for moment in MOMENTS]))
    assert column.formats == (day + clock,), column


@pytest.mark.parametrize(
    "text", ["2024-12-31", "2024-12-31 10:00", "2024-12-31T10:00:00Z", "2024-12-31T10:00:00.123+02:00"]
)
def test_iso_is_the_empty_form(text):
    assert facts(pl.Series("x", [text])).formats == ("",)


def test_days_and_months_that_read_both_ways_leave_both():
    assert set(facts(pl.Series("x", ["01/02/2024", "03/04/2024"])).formats) == {"%d/%m/%Y", "%m/%d/%Y"}


def test_ids_and_phone_numbers_are_no_times():
    assert facts(pl.Series("x", ["12345", "67890"])).units == ()
    assert facts(pl.Series("x", ["v1.2.3", "v2.0.0"])).formats == ()
