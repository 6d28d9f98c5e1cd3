"""Columns that are named like labels: they are read as a whole or asked about, and never ignored silently."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from taiji.data.discovery.label_columns import meant
from taiji.data.discovery.table_files import Table


def read(name, values, meaning="click"):
    table = Table(Path("log.csv"), pl.DataFrame({name: values}))
    return meant(table, table.columns[name], meaning)


@pytest.mark.parametrize(
    ("name", "values", "rule"),
    [
        ("click", ["Y", "N", "N"], "click"),
        ("click", ["N", "N", "N"], "click"),
        ("clicked", ["ja", "nein", ""], "clicked"),
        ("点击", ["是", "否", "否"], "点击"),
        ("click", ["x", "", None], "click"),
        ("click", [0, 1, 4, 2], "click > 0"),
        ("num_clicks", ["0", "3", "2"], "num_clicks > 0"),
        ("click", [-1, 1, 1], "click == 1"),
        ("click", ["clicked", "not clicked"], "click == clicked"),
        ("not_clicked", [0, 1, 0], "not not_clicked"),
        ("unclicked", ["Y", "N"], "not unclicked"),
        ("no_click", [0, 3, 1], "no_click == 0"),
        ("未点击", [0, 1], "not 未点击"),
        ("my click", [0, 1], "my click"),
        ("not click", [0, 1], "not `not click`"),
        ("click", ["yes", "no"] * 30 + ["maybe"], "click"),
    ],
)
def test_rules_are_inferred_from_values(name, values, rule):
    found = read(name, values)
    assert found is not None and found.question is None and found.rule == rule


@pytest.mark.parametrize(
    ("name", "values", "meaning", "choices"),
    [
        ("click", [1, 2, 1], "click", ["click == 1", "click == 2", 1]),
        ("click", ["1", "", "1"], "click", ["click is not null", "click", 1]),
        ("not_clicked", ["yes", "", "yes"], "click", ["not_clicked is null", "not not_clicked", 1]),
        ("is_click", ["A", "B"], "click", ["is_click == A", "is_click == B", 1]),
        ("clicked", ["yes", "no", "maybe"], "click", ["clicked == maybe", "clicked == no", "clicked == yes", 1]),
        ("purchase", ["A", "B"], "conversion", ["purchase == A", "purchase == B", "null"]),
        ("order", [0, 1, 2], "conversion", ["order > 0", "null"]),
        ("label", ["A", "B"], "label", ["label == A", "label == B", 1]),
    ],
)
def test_ambiguous_values_become_a_question(name, values, meaning, choices):
    found = read(name, values, meaning)
    assert found is not None and found.rule is None and found.question is not None
    assert name in found.question.what
    assert [choice.value for choice in found.question.choices] == choices


@pytest.mark.parametrize(
    ("name", "values"), [("order", list(range(1000, 1100))), ("purchase_note", ["a", "b"]), ("click_time", [5, 6, 7])]
)
def test_another_thing_with_such_a_word_in_its_name_is_no_label(name, values):
    assert read(name, values, "conversion" if "click" not in name else "click") is None


def test_broken_cells_are_reported():
    found = read("click", ["yes", "no"] * 30 + ["maybe"])
    assert "1 of 61 cells of click cannot be read (row 61: 'maybe')" in found.doubts[0]
