"""Rewards of sets: the best and the worst answer, repetition, retrieval by hand."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from tests.alignment.test_reward_table import EXAMPLES, SETTINGS, SPLIT, Known, Letters, make_dataset

from taiji.alignment.reward_table import RewardTable, build_reward_table
from taiji.alignment.set_rewards import (
    REPEATED,
    SLATE,
    SetAnswers,
    ground_sets,
    set_preference_reward,
    set_semantic_reward,
)
from taiji.core.errors import TaijiError
from taiji.reasoning.answers import format_completion, format_set
from taiji.reasoning.prompts import item_line

SETS = EXAMPLES.with_columns(targets=pl.Series([[4, 7, 9], [11, 4]], dtype=pl.List(pl.UInt32)))


WIDE = SETTINGS.model_copy(update={"popular_candidates": 9, "random_candidates": 12})


class Sized(Letters):
    dimension = 36


@pytest.fixture(scope="module")
def dataset():
    return make_dataset()


@pytest.fixture(scope="module")
def table(dataset) -> RewardTable:
    return build_reward_table(dataset, SPLIT, SETS, Known(), Sized(), WIDE, 0)


def said(dataset, *items: int) -> str:
    return format_completion("because", format_set([item_line(dataset, item) for item in items]))


def test_every_next_item_is_a_candidate(table):
    for name, items in SETS.select("example", "targets").iter_rows():
        assert set(items) <= set(table.rows.filter(pl.col("example") == name)["item"])


def test_the_semantic_reward_is_coverage_less_repetition(dataset, table):
    reward = set_semantic_reward(table, SetAnswers(Sized(), 8))
    whole, part, twice = said(dataset, 4, 7, 9), said(dataset, 4), said(dataset, 4, 4, 4)
    best, one, repeated, wrong, order = reward(
        ["one"] * 5, [whole, part, twice, said(dataset, 0), said(dataset, 9, 4, 7)]
    )
    vectors = Sized().encode([item_line(dataset, item) for item in (4, 7, 9)])
    nearest = np.where(np.tri(3, k=-1, dtype=bool), vectors @ vectors.T, -1).max(axis=1)
    repeats = np.clip((nearest - 0.8) / 0.2, 0, 1).sum() / 2
    assert best == pytest.approx(1 - REPEATED * repeats, abs=1e-5)
    assert one == pytest.approx((vectors @ vectors[0]).mean(), abs=1e-5)
    assert repeated == pytest.approx(max(one - REPEATED, 0), abs=1e-5)
    assert 0 <= wrong < one <= 1 and order == pytest.approx(best, abs=1e-5)
    assert reward(["two"], [said(dataset, 11, 4)])[0] > reward(["one"], [said(dataset, 11, 4)])[0]


def test_the_preference_reward_is_the_worth_of_what_the_intents_retrieve(dataset, table):
    reward = set_preference_reward(table, SetAnswers(Sized(), 8))
    text = said(dataset, 4, 7)
    rows = table.rows.filter(pl.col("example") == "one")
    lines = Sized().encode([item_line(dataset, item) for item in rows["item"]])
    scores = (lines @ Sized().encode([item_line(dataset, item) for item in (4, 7)]).T).max(axis=1)
    values = rows["reward"].to_numpy()
    size = SLATE
    assert len(values) > size  # else every slate is worth the same
    chosen = values[np.argsort(-scores, kind="stable")[:size]].mean()
    low, high = np.sort(values)[:size].mean(), np.sort(values)[-size:].mean()
    assert reward(["one"], [text])[0] == pytest.approx((chosen - low) / (high - low))


def test_malformed_answers_get_the_minimum(dataset, table):
    answers = SetAnswers(Sized(), 8)
    broken = [
        "",
        "no tags",
        "<answer></answer>",
        "<answer>Item title: " + "x" * 900 + "</answer>",
        "<answer>Item title: a",
    ]
    for reward in (set_semantic_reward(table, answers), set_preference_reward(table, answers)):
        assert (reward(["one"] * 5, broken) == 0).all()
    well, grounded, items = ground_sets(table, answers, ["one", "one"], [said(dataset, 9, 4), "bad"])
    assert well.tolist() == [True, False]
    assert grounded.items[0] == 9 and items == [[9, 4], []]


def test_saved_and_loaded_and_what_a_table_of_single_answers_says(dataset, table, tmp_path):
    table.save(tmp_path / "table")
    loaded = RewardTable.load(tmp_path / "table")
    assert np.array_equal(loaded.set_vectors(["two", "one"]), table.set_vectors(["two", "one"]))
    assert not table.set_vectors(["two", "one"])[0, 2].any()
    single = build_reward_table(dataset, SPLIT, EXAMPLES, Known(), Sized(), SETTINGS, 0)
    assert single.sets is None
    single.save(tmp_path / "single")
    assert not (tmp_path / "single" / "sets.parquet").exists()
    with pytest.raises(TaijiError, match="single answers"):
        set_semantic_reward(single, SetAnswers(Sized(), 8))(["one"], [said(dataset, 4)])


def test_levels_below_the_third_are_read():
    asked = []

    class Noted(Sized):
        def encode(self, texts):
            asked.extend(texts)
            return super().encode(texts)

    line = "Item title: a; Category L1: b; L2: c; L3: d; L4: e"
    SetAnswers(Noted(), 8).read([format_completion("because", line)])
    assert asked == [line]
