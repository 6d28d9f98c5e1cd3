"""Pairs out of sends: the test by its formula, strata, filters, and what is rejected."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from taiji.copywriting.copy_pairs import PAIRS, check_results, copy_pairs
from taiji.copywriting.settings import PairSettings
from taiji.core.errors import InputError

CLICKS = PairSettings(outcome="clicks", least_sends=10, least_z=0.0)


def results(rows: list[tuple], *more: str) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["item_id", "copy", "sends", "clicks", *more], orient="row")


def test_the_statistic_is_that_of_mantel_and_haenszel():
    found = copy_pairs(results([("i", "a", 100, 30), ("i", "b", 50, 5)]), CLICKS)
    n, x = 150, 35
    z = (30 - 100 * x / n) / np.sqrt(100 * 50 * x * (n - x) / (n**2 * (n - 1)))
    assert found.row(0) == ("i", "a", "b", "", "", 50, pytest.approx(z)) and dict(found.schema) == PAIRS
    other = copy_pairs(results([("i", "b", 50, 5), ("i", "a", 100, 30)]), CLICKS)
    assert other.row(0)[:-1] == found.row(0)[:-1] and other["z"][0] == pytest.approx(z)


def test_strata_in_which_only_one_was_sent_say_nothing_and_a_confounded_rate_is_no_win():
    """By totals a wins (46 of 120 against 34 of 120); within either day both have the same rate."""
    rows = [("i", "a", 100, 45, "mon"), ("i", "b", 20, 9, "mon"), ("i", "a", 20, 1, "tue"), ("i", "b", 100, 5, "tue")]
    assert copy_pairs(results(rows, "stratum"), CLICKS.model_copy(update={"least_z": 0.01})).is_empty()
    pooled = copy_pairs(results([row[:4] for row in rows]), CLICKS)
    assert pooled["winner"].to_list() == ["a"] and pooled["z"][0] > 3
    alone = [("i", "a", 500, 5, "mon"), ("i", "b", 500, 90, "tue")]
    assert copy_pairs(results(alone, "stratum"), CLICKS).is_empty()


@pytest.mark.parametrize("empty", ["category", "stratum"])
def test_an_empty_cell_is_a_category_or_stratum_like_any_other(empty):
    rows = [("i", "a", 1000, 300, None), ("i", "b", 1000, 100, None)]
    assert copy_pairs(results(rows, empty), CLICKS).select("winner", "loser").rows() == [("a", "b")]
    mixed = copy_pairs(results([*rows, ("i", "a", 1000, 300, "x"), ("i", "b", 1000, 100, "x")], empty), CLICKS)
    assert len(mixed) == (
        1 if empty == "stratum" else 4
    )  # with categories there are four copies, two pairs of them tied


def test_few_sends_and_small_differences_make_no_pair():
    rows = [("i", "a", 100, 30), ("i", "b", 9, 0), ("i", "c", 100, 27), ("j", "a", 100, 90)]
    assert copy_pairs(results(rows), CLICKS).select("winner", "loser").rows() == [("a", "c")]
    assert copy_pairs(results(rows), CLICKS.model_copy(update={"least_z": 1.96})).is_empty()
    even = [("i", "a", 100, 0), ("i", "b", 100, 0)]
    assert copy_pairs(results(even), CLICKS).is_empty()
    tied = [("i", "a", 90, 30), ("i", "b", 30, 10), ("i", "c", 60, 20)]  # equal rates, which rounding must not separate
    assert copy_pairs(results(tied), CLICKS).is_empty()


def test_satisfaction_decides_where_it_is_asked_for():
    rows = [("i", "bait", "x", 100, 40, 4), ("i", "honest", "y", 100, 20, 16)]
    table = pl.DataFrame(rows, schema=["item_id", "copy", "category", "sends", "clicks", "satisfied"], orient="row")
    settings = PairSettings(least_sends=10)
    assert copy_pairs(table, settings).select("winner", "winner_category").rows() == [("honest", "y")]
    assert copy_pairs(table, CLICKS)["winner"].to_list() == ["bait"]
    with pytest.raises(InputError, match="number of satisfied users"):
        copy_pairs(table.drop("satisfied"), settings)


def test_rows_of_one_copy_are_added_up_and_wrong_counts_are_rejected():
    twice = check_results(results([("i", "a", 10, 1), ("i", "a", 5, 2)]))
    assert twice.select("sends", "clicks", "satisfied").rows() == [(15, 3, None)]
    for row in (("i", "a", 1, 2), ("i", "a", -1, 0), ("i", None, 1, 1)):
        with pytest.raises(InputError, match=r"not (consistent )?counts"):
            check_results(results([row]))
    with pytest.raises(InputError, match="no clicks"):
        check_results(pl.DataFrame({"item_id": ["i"], "copy": ["a"], "sends": [1]}))


@pytest.mark.parametrize("sends", [100.5, float("nan"), float("inf"), "many", True], ids=str)
def test_counts_are_whole_numbers(sends):
    with pytest.raises(InputError, match="column sends"):
        check_results(pl.DataFrame({"item_id": ["i"], "copy": ["a"], "sends": [sends], "clicks": [1]}))
    whole = check_results(pl.DataFrame({"item_id": ["i"], "copy": ["a"], "sends": [100.0], "clicks": [1.0]}))
    assert whole.select("sends", "clicks").rows() == [(100, 1)] and whole["sends"].dtype == pl.Int64


def test_nobody_is_satisfied_less_than_never():
    row = pl.DataFrame({"item_id": ["i"], "copy": ["a"], "sends": [9], "clicks": [1], "satisfied": [-1]})
    with pytest.raises(InputError, match="satisfied -1"):
        check_results(row)


def test_clicks_alone_are_warned_of(caplog):
    copy_pairs(results([("i", "a", 100, 30), ("i", "b", 50, 5)]), CLICKS)
    assert "promise more than they keep" in caplog.text
