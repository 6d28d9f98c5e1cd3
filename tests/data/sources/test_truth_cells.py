"""Yes and no in many languages, told from a column as a whole."""

from __future__ import annotations

import polars as pl
import pytest

from taiji.data.sources.truth_cells import NO, YES, read_truth, understood


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        ([1, 0, None], [True, False, None]),
        ([1.0, float("nan"), 0.0], [True, None, False]),
        ([True, False, None], [True, False, None]),
        (["1", "0", ""], [True, False, None]),
        (["Y", "n"], [True, False]),
        (["N", "N"], [False, False]),
        (["ja", "Nein", "n/a"], [True, False, None]),
        (["oui", "non"], [True, False]),
        (["sí", "no"], [True, False]),
        (["да", "нет"], [True, False]),
        (["是", "否"], [True, False]),
        (["はい", "いいえ"], [True, False]),
        (["evet", "hayır"], [True, False]),
        (["t", "f"], [True, False]),
        (["o", "n"], [True, False]),
        (["+", "-"], [True, False]),
        (["x", "", None, " X "], [True, False, False, True]),
        (["✓", "-"], [True, False]),
        (["TRUE", "unknown", "FALSE"], [True, None, False]),
    ],
)
def test_what_cells_say(cells, values):
    truth = read_truth(pl.Series("x", cells, dtype=pl.String if isinstance(cells[0], str) else None))
    assert understood(truth) and truth.known == 1
    assert truth.values.to_list() == values


@pytest.mark.parametrize("cells", [["1", "2"], ["yes", "no", "maybe"], ["A", "B"], ["m", "f"], [3, 4], ["", None], []])
def test_what_they_do_not_say(cells):
    assert not understood(read_truth(pl.Series("x", cells, dtype=pl.String if cells[:1] != [3] else None)))


def test_one_broken_cell_among_many_is_null():
    truth = read_truth(pl.Series("x", ["yes", "no"] * 20 + ["maybe"]))
    assert understood(truth) and truth.values.null_count() == 1 and truth.known == pytest.approx(40 / 41)


def test_yes_with_empty_cells_is_distinguished_from_a_mark():
    truth = read_truth(pl.Series("x", ["yes", "", "yes"]))
    assert truth.sides == {True} and truth.empty == 1 and not truth.mark
    assert read_truth(pl.Series("x", ["x", "", "x"])).mark == "x"


def test_no_word_means_both():
    assert not YES & NO
