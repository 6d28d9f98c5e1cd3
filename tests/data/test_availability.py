"""Bounds of the item table, and what they allow at a time."""

from datetime import datetime

import numpy as np
import polars as pl
import pytest

from taiji.core.errors import InputError
from taiji.data.availability import Availability
from taiji.data.dataset import Dataset
from taiji.data.schema import Tables


def shop(**columns):
    items = pl.DataFrame({"item_id": ["a", "b", "c"], "title": ["a", "b", "c"], **columns})
    events = pl.DataFrame({"user_id": ["u"], "item_id": ["a"], "timestamp": [datetime(2024, 1, 1)], "click": [1]})
    return Dataset.from_tables(Tables(items=items, users=pl.DataFrame({"user_id": ["u"]}), events=events, name="x"))


def test_bounds_are_from_first_to_strictly_before_end():
    day = datetime(2024, 1, 2)
    found = Availability.of(shop(available_from=[None, day, None], available_until=[None, None, day]))
    microsecond = pl.Series([day]).dt.epoch("us").item()
    assert found.bounded and found.at([microsecond - 1, microsecond]).tolist() == [
        [True, False, True],
        [True, True, False],
    ]


def test_without_columns_everything_is_available():
    found = Availability.of(shop())
    assert not found.bounded and found.at([0, 2**62]).all()


def test_what_is_no_time_is_an_error():
    with pytest.raises(InputError, match="available_from"):
        Availability.of(shop(available_from=["soon", "soon", "soon"]))
    with pytest.raises(InputError, match="one start time"):
        Availability(np.zeros(3, np.int64), np.zeros(2, np.int64))


def test_times_may_be_written_out_as_a_csv_file_has_them():
    written = ["2024-01-02", None, "2024-01-02T02:00:00+02:00"]
    found = Availability.of(shop(available_from=written, available_until=["2024-01-03 00:00:00.5", None, None]))
    day = pl.Series([datetime(2024, 1, 2)]).dt.epoch("us").item()
    assert found.first.tolist()[::2] == [day, day] and found.end[0] == day + 86_400_500_000
    assert found.at([day - 1, day]).tolist() == [[False, True, False], [True, True, True]]
    assert not Availability.of(shop(available_from=pl.Series([None, None, None], dtype=pl.String))).bounded
    same = Availability.of(shop(available_from=[str(day), "", "  "])).first
    assert same[0] == day and (same[1:] == Availability.of(shop()).first[1:]).all()
    for wrong in ("02.01.2024", "2024-13-01", "1704153600", "1704153600000"):
        with pytest.raises(InputError, match="not contain times") as error:
            Availability.of(shop(available_from=["2024-01-02", wrong, None]))
        assert wrong in str(error.value)


@pytest.mark.parametrize("number", ["1612101212345", "1612101212"], ids=["milliseconds", "seconds"])
def test_a_number_that_reads_like_a_date_is_no_time(number):
    """``fromisoformat`` takes 1612101212345 for the year 1612."""
    with pytest.raises(InputError, match="not contain times"):
        Availability.of(shop(available_from=[number, "2024-01-02", None]))
