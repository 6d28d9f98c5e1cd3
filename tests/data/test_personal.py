"""Contact data is told by a column's name, or by its values whatever its name."""

from __future__ import annotations

import polars as pl
import pytest

from taiji.data.personal import private


@pytest.mark.parametrize(
    "name", ["email", "E-Mail", "phone_number", "Telefonnummer", "postcode", "Geburtsdatum", "手机"]
)
def test_names(name):
    assert "by its name" in private(name, pl.Series(["x"]))


@pytest.mark.parametrize("value", ["a.b@mail.example", "+49 (30) 123-456", "0301234567", "10.0.0.12"])
def test_values(value):
    assert "by its values" in private("c", pl.Series([value] * 9 + ["unknown"]))


@pytest.mark.parametrize("value", ["north", "18-24", "1234", "2020-01-01", "3.5"])
def test_others(value):
    assert private("c", pl.Series([value] * 10)) == ""
    assert private("age", pl.Series([30, 40])) == ""
