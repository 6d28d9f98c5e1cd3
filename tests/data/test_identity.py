"""Ids of two files in one form: the right value for every spelling, and nothing merged that may be two."""

from __future__ import annotations

from decimal import Decimal

import polars as pl
import pytest

from taiji.data.identity import alike, joined, plain, shortened

BIG = 9_007_199_254_740_993
"""The first whole number that a float cannot hold."""


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (pl.Series([" a ", "", None, "a"]), ["a", None, None, "a"]),
        (pl.Series(["NULL", "\\N", "nan", "Null Bar"]), [None, None, None, "Null Bar"]),
        (pl.Series([1.0, float("nan"), None, 3.0]), [1, None, None, 3]),
        (pl.Series([BIG, None]), [BIG, None]),
        (pl.Series([2**63 + 5, 1], dtype=pl.UInt64), [str(2**63 + 5), "1"]),
        (pl.Series([7, 1], dtype=pl.UInt64), [7, 1]),
        (pl.Series(["b", "a"], dtype=pl.Categorical), ["b", "a"]),
        (pl.Series([b"x", None]), ["x", None]),
        (pl.Series([Decimal("12.00"), Decimal("7.00")]), [12, 7]),
        (pl.Series([1.5, 2.0]), [1.5, 2.0]),
    ],
    ids=[
        "spaces",
        "missing",
        "floats",
        "beyond floats",
        "beyond int64",
        "unsigned",
        "categories",
        "bytes",
        "decimals",
        "no ids",
    ],
)
def test_ids_are_integers_or_text_without_spaces(given, wanted):
    assert plain(given).to_list() == wanted


def test_float_and_padded_ids_find_their_items_with_a_note():
    for events in (pl.Series(["12.0", "7.0"]), pl.Series(["00012", "00007"]), pl.Series(["12 ", " 7"])):
        made = joined(pl.Series(["12", "7", "3"]), events, "item_id", "items")
        assert made.events.to_list() == ["12", "7"]
        assert (made.match.rows_known, made.match.event_ids_known, made.match.used, made.match.ids) == (2, 2, 2, 3)
    assert "'00012' for '12'" in joined(pl.Series([12, 7]), pl.Series(["00012"]), "item_id", "items").changes[0]


def test_the_table_s_own_spelling_is_kept():
    made = joined(pl.Series(["00012", "00007"]), pl.Series([7, 12, 7]), "item_id", "items")
    assert made.events.to_list() == ["00007", "00012", "00007"]
    assert made.table.to_list() == ["00012", "00007"]


@pytest.mark.parametrize(
    ("table", "events"),
    [
        (["007", "7", "8"], ["007", "7", "08"]),
        (["7", "8"], ["007", "7", "08"]),
        (["12.0", "12"], ["12.00", "12"]),
    ],
    ids=["two in the table", "two in the log", "versions"],
)
def test_where_two_forms_of_one_number_occur_nothing_is_merged(table, events):
    made = joined(pl.Series(table), pl.Series(events), "item_id", "items")
    assert made.events.to_list() == events
    assert not made.changes
    assert made.match.near == len(set(events) - set(table)), "each is named as a near match"


def test_whole_numbers_with_and_without_a_fraction_are_one_id_where_the_table_knows_one():
    made = joined(pl.Series(["12", "7"]), pl.Series(["12.0", "12", "7"]), "item_id", "items")
    assert made.events.to_list() == ["12", "12", "7"]


def test_large_integers_meet_their_text_exactly():
    made = joined(pl.Series([BIG, BIG + 1]), pl.Series([str(BIG + 1), str(BIG)]), "item_id", "items")
    assert made.events.to_list() == [str(BIG + 1), str(BIG)]
    assert made.match.rows_known == 2 and not made.changes


def test_near_matches_are_counted_and_not_joined():
    made = joined(pl.Series(["SKU-1", "SKU-2"]), pl.Series(["sku1", "SKU-2", "other"]), "item_id", "items")
    assert made.events.to_list() == ["sku1", "SKU-2", "other"]
    assert (made.match.near, made.match.near_examples) == (1, (("sku1", "SKU-1"),))
    assert (made.match.rows, made.match.rows_known) == (3, 1)


def test_ids_of_one_column_that_differ_in_spelling_alone():
    assert alike(pl.Series(["ann", "Ann", "bob", "007", "7", None])) == [("007", "7"), ("Ann", "ann")]
    assert alike(pl.Series([1, 2])) == []


def test_ids_that_a_spreadsheet_truncated_are_reported():
    said = shortened(pl.Series("user_id", ["1.23457E+12", "9.9e+11", "7", None]))
    assert "2 distinct ids of column user_id" in said and "'1.23457E+12'" in said
    assert shortened(pl.Series("user_id", ["12e4x", "E+1"])) == "" and shortened(pl.Series("n", [1])) == ""
