"""Numbers as people and programs write them: the column as a whole tells the form, and what is no number is null."""

from __future__ import annotations

import polars as pl
import pytest

from taiji.data.sources.number_cells import as_numbers, broken, number_forms


@pytest.mark.parametrize(
    ("cells", "forms", "numbers"),
    [
        (["1.5", "-2", "+3.", ".5", "1e3"], ("1234.50",), [1.5, -2, 3, 0.5, 1000]),
        (["1,5", "2"], ("1234,50",), [1.5, 2]),
        (["€ 1.299,00", "5,00 €", "7"], ("1.234,50",), [1299, 5, 7]),
        (["$1,299.00", "USD 3"], ("1,234.50",), [1299, 3]),
        (["12,34,567", "5"], ("1,234.50",), [1234567, 5]),
        (["1 234,50", "3"], ("1 234,50",), [1234.5, 3]),
        (["1\u00a0234,50 zł", "3 zł"], ("1 234,50",), [1234.5, 3]),
        (["1'234.50", "CHF 3"], ("1'234.50",), [1234.5, 3]),
        (["1.234.567", "3"], ("1.234,50",), [1234567, 3]),
        (["(5.00)", "7.5-", "−2.25"], ("1234.50",), [-5, -7.5, -2.25]),
        (["12,-", "3,50"], ("1234,50",), [12, 3.5]),
        (["n/a", "NULL", "-", "3.5", None], ("1234.50",), [None, None, None, 3.5, None]),
        (["1.000", "2.000"], ("1234.50", "1.234,50"), [1, 2]),
        (["1,000", "2,000"], ("1234,50", "1,234.50"), [1, 2]),
        (["1.000", "500"], ("1234.50", "1.234,50"), [1, 500]),
        (["1.000", "0.500"], ("1234.50",), [1, 0.5]),
        (["1.000", "12.5"], ("1234.50",), [1, 12.5]),
        (["1.000", "1.299,00"], ("1.234,50",), [1000, 1299]),
        (["abc", "1"], (), None),
        (["2024-01-01"], (), None),
        ([], (), None),
    ],
)
def test_forms(cells, forms, numbers):
    column = pl.Series("x", cells, dtype=pl.String)
    assert number_forms(column) == forms
    if numbers is not None:
        assert as_numbers(column, forms[0]).to_list() == numbers


def test_a_few_broken_cells_leave_the_form_as_it_is():
    column = pl.Series("x", ["1.5"] * 40 + ["abc", "inf"])
    assert number_forms(column) == ("1234.50",)
    read = as_numbers(column)
    assert read.null_count() == 2 and broken(column, read).arg_true().to_list() == [40, 41]


def test_another_form_is_not_read_as_a_smaller_or_larger_number():
    assert as_numbers(pl.Series(["4.5", "1.299,00"]), "1.234,50").to_list() == [None, 1299.0]
    assert as_numbers(pl.Series(["1,5"]), "1234.50").to_list() == [None]
    assert as_numbers(pl.Series(["1,5"]), "1,234.50").to_list() == [None]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")], ids=["nan", "inf", "-inf"])
def test_numbers_that_are_not_finite_are_none(value):
    column = pl.Series("x", [1.0, value])
    assert as_numbers(column).to_list() == [1.0, None]
    assert broken(column, as_numbers(column)).to_list() == [False, value == value]
