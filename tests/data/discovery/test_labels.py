"""Rules for clicks and conversions, from flags, actions and ratings."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from taiji.data.discovery.labels import labels
from taiji.data.discovery.table_files import Table


@pytest.mark.parametrize(
    ("columns", "click", "conversion", "doubtful"),
    [
        ({"clicked": [0, 1, 1], "bought": [0, 0, 1]}, "clicked", "bought", False),
        ({"clicked": [0, 1, 1], "bought": [1, 0, 1]}, "clicked or bought", "bought", True),
        ({"bought": [0, 1, 1]}, "bought", None, True),
        ({"purchased": [1, 1, 1]}, 1, "purchased", False),
        ({"event_type": ["view", "cart", "purchase"]}, 1, "event_type == purchase", False),
        (
            {"event_type": ["impression", "click", "purchase"]},
            "event_type != impression",
            "event_type == purchase",
            False,
        ),
        ({"event": ["view", "click", "buy"]}, "event != view", "event == buy", True),
        ({"event": ["impression", "no_click", "click"]}, "event == click", None, False),
        ({"event": ["impression", "buy"]}, "event != impression", None, False),
        ({"event": ["click", "buy", "order"]}, 1, "event in (buy, order)", False),
        ({"event": ["buy", "return"]}, 1, "event == buy", True),
        ({"event": ["add to cart", "page view", "bought it"]}, 1, "event == 'bought it'", False),
        ({"stars": [1, 3, 5]}, 1, "stars >= 4", False),
        ({"rating": [0.5, 5.0, 3.0]}, 1, "rating >= 3.875", False),
        ({"odd": [0, 1, 1]}, 1, None, True),
        ({"click": ["Y", "N", "N"], "purchase": ["Y", "N", "N"]}, "click", "purchase", False),
        ({"click": ["ja", "nein", "nein"], "kauf": ["x", "", ""]}, "click", "kauf", False),
        ({"not_clicked": [0, 1, 1]}, "not not_clicked", None, False),
        ({"clicks": [0, 3, 1], "orders": [0, 2, 0]}, "clicks > 0", "orders > 0", False),
        ({"rating": [4.5, None, float("nan")]}, 1, "rating >= 4.5", False),
        ({"rating": ["4,5", "1,5", "5,5"]}, 1, "rating >= 4.5", False),
        ({"action": ["like", "dislike", "hide"]}, "action == like", None, True),
        ({"action": ["like", "buy", "skip"]}, "action != skip", "action == buy", False),
        ({"action": ["like", "skip", "not_interested"]}, "action == like", None, True),
        ({"event": ["seen", "not clicked", "clicked"]}, "event == clicked", None, False),
        ({"label": [0, 1, 1]}, "label", None, True),
        ({"target": ["yes", "no", "no"]}, "target", None, True),
        ({}, 1, None, False),
    ],
)
def test_rules(columns, click, conversion, doubtful):
    found = labels(
        Table(
            Path("log.csv"),
            pl.DataFrame({"user": ["a", "b", "c"][: len(next(iter(columns.values()), "abc"))], **columns}),
        ),
        {"user"},
    )
    assert (found.click, found.conversion) == (click, conversion)
    assert bool(found.doubts) == doubtful
    assert set(found.reasons) == {"click", *(["conversion"] if conversion else [])}
    assert not found.questions


@pytest.mark.parametrize(
    ("columns", "asked"),
    [
        (
            {"behavior_type": [1, 2, 3, 4]},
            {
                "events.click": [
                    1,
                    *(f"behavior_type == {code}" for code in (1, 2, 3, 4)),
                    *(f"behavior_type >= {code}" for code in (2, 3)),
                ],
                "events.conversion": [*(f"behavior_type == {code}" for code in (1, 2, 3, 4)), "null"],
            },
        ),
        (
            {"action": ["A", "B"]},
            {
                "events.click": [1, "action == A", "action == B"],
                "events.conversion": ["action == A", "action == B", "null"],
            },
        ),
        (
            {"action": ["show", "like", "zap"]},
            {"events.click": ["action != show", "action == like"]},
        ),
        (
            {"status": ["zrealizowane", "anulowane"]},
            {
                "events.click": [1, "status == anulowane", "status == zrealizowane"],
                "events.conversion": ["status == anulowane", "status == zrealizowane", "null"],
            },
        ),
        (
            {"status": ["completed", "cancelled", "returned", "pending"]},
            {"events.click": [1, "status == completed", "status == pending"]},
        ),
        ({"click": [1, 2], "purchase": ["yes", "no"]}, {"events.click": ["click == 1", "click == 2", 1]}),
        (
            {"click": [1, 2], "purchase": ["a", "b"]},
            {
                "events.click": ["click == 1", "click == 2", 1],
                "events.conversion": ["purchase == a", "purchase == b", "null"],
            },
        ),
    ],
)
def test_ambiguous_values_become_a_question(columns, asked):
    found = labels(Table(Path("log.csv"), pl.DataFrame(columns)), set())
    assert {question.key: [choice.value for choice in question.choices] for question in found.questions} == asked
    assert all(next(iter(columns)) in question.what or "purchase" in question.what for question in found.questions)
    assert set(found.columns) == set(columns)


def test_rows_with_a_purchase_and_no_click_become_clicks_and_are_counted():
    found = labels(Table(Path("log.csv"), pl.DataFrame({"clicked": [0, 1, 0], "bought": [1, 0, 0]})), set())
    assert found.click == "clicked or bought" and found.doubts[0].startswith("1 rows have bought without clicked")


def test_a_rare_unknown_action_is_reported():
    table = Table(Path("log.csv"), pl.DataFrame({"action": ["show", "click"] * 100 + ["zap"]}))
    found = labels(table, set())
    assert not found.questions and "'zap' (1 rows) is unknown" in found.doubts[0]


@pytest.mark.parametrize("name", ["is_test_order", "bot_click", "cancelled_purchase"])
def test_a_mark_of_rows_that_nobody_wished_is_no_label(name):
    found = labels(Table(Path("log.csv"), pl.DataFrame({"clicked": [0, 1, 1], name: [1, 0, 1]})), set())
    assert (found.click, found.conversion) == ("clicked", None)
    alone = labels(Table(Path("log.csv"), pl.DataFrame({name: [1, 0, 1]})), set())
    assert (alone.click, alone.conversion, alone.doubts) == (1, None, ())


def test_codes_of_an_action_may_be_floats_and_long_numbers():
    found = labels(Table(Path("log.csv"), pl.DataFrame({"event_type": [1.0, 2.0, 3.0, None] * 50})), set())
    assert [question.key for question in found.questions] == ["events.click", "events.conversion"]
    long = labels(Table(Path("log.csv"), pl.DataFrame({"click": [1_000_001, 1_000_002] * 50})), set())
    (question,) = long.questions
    assert [choice.value for choice in question.choices][:2] == ["click == 1000001", "click == 1000002"]
