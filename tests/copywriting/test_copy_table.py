"""The table: checks, duplicates, scores, exact propensities and the draw."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from tests.copywriting.evidences import evidence

from taiji.alignment.text_reward_model import TextScores
from taiji.copywriting.copy_categories import copy_categories, copy_prompt
from taiji.copywriting.copy_table import SCHEMA, checked_rows, choice_chances, chosen_rows, scored_rows, written_rows
from taiji.copywriting.settings import CopyLimits, CopywritingSettings
from taiji.reasoning.item_knowledge import Said

SETTINGS = CopywritingSettings(categories=("factual", "question"))
CATEGORIES = copy_categories(SETTINGS, "shop")


class ByLength:
    """Scores a copy by its characters."""

    version = "by length"

    def scores(self, texts, categories):
        values = np.array([float(len(text)) for text in texts])
        return TextScores(values, 0 * values, 0 * values)


def table(*texts: str, item: str = "i1") -> pl.DataFrame:
    asked = [copy_prompt(evidence(item), category, SETTINGS) for category in CATEGORIES]
    said = [
        [Said(text, "whole" if text else "cut", 9, 2) for text in part]
        for part in np.array_split(np.array(texts, dtype=object), 2)
    ]
    return checked_rows(written_rows(asked, said, "w"), asked, CopyLimits())


def test_copies_are_checked_and_duplicates_of_an_item_are_left_out_across_categories():
    found = table(
        "New: Alpine Trail lamp", "Rolex, a lamp for you", "", "new: Alpine Trail lamp!", "Have you seen this lamp?"
    )
    assert found["copy"].to_list() == ["New: Alpine Trail lamp", None, None, None, "Have you seen this lamp?"]
    assert found["reasons"].to_list() == ["", "name", "cut", "duplicate", ""]
    assert found["category"].to_list() == ["factual"] * 3 + ["question"] * 2 and found["sample"].to_list() == [
        0,
        1,
        2,
        0,
        1,
    ]
    assert dict(found.schema) == SCHEMA and found["asked"].n_unique() == 2


def test_what_is_checked_is_what_is_sent():
    found = table("New: Alpine\u200b Trail  lamp", "See this l\u00adamp")
    assert found["copy"].to_list() == ["New: Alpine Trail lamp", "See this lamp"]


def test_chances_are_exact():
    np.testing.assert_allclose(choice_chances(np.array([1.0, 3.0, 2.0, 0.0]), 0.2), [0.05, 0.85, 0.05, 0.05])
    np.testing.assert_allclose(choice_chances(np.array([1.0, np.nan]), 0.2), [0.5, 0.5])
    assert choice_chances(np.array([5.0]), 0.3) == [1.0]


def test_the_choice_follows_the_propensities_and_hangs_on_seed_and_item_alone():
    one = ["New: Alpine Trail lamp", "See this lamp now", "Have you seen this lamp?", "Rolex lamp for you"]
    items = pl.concat([table(*one, item=f"i{n}") for n in range(400)])
    chosen = chosen_rows(scored_rows(items, ByLength()), 0.3, seed=1)
    sums = chosen.group_by("item_id").agg(pl.col("propensity").sum(), pl.col("chosen").sum())
    assert sums["propensity"].to_numpy() == pytest.approx(1.0) and (sums["chosen"] == 1).all()
    best = chosen.filter(pl.col("copy") == one[2])
    assert best["propensity"].to_numpy() == pytest.approx(0.8) and 0.72 < best["chosen"].mean() < 0.88
    assert chosen.filter(pl.col("copy").is_null())["propensity"].null_count() == 400
    again = chosen_rows(scored_rows(items[800:], ByLength()), 0.3, seed=1)
    assert again["chosen"].to_list() == chosen["chosen"][800:].to_list()
    assert chosen_rows(scored_rows(items, ByLength()), 0.3, seed=2)["chosen"].to_list() != chosen["chosen"].to_list()


def test_without_a_model_all_copies_are_even():
    found = chosen_rows(
        scored_rows(table("New: Alpine Trail lamp", "See this lamp now", "Is this lamp for you?"), None), 0.1, 0
    )
    assert found["propensity"].to_numpy() == pytest.approx(1 / 3) and found["score"].null_count() == 3
    scored = scored_rows(table("New: Alpine Trail lamp", "Rolex lamp for you", "Is this lamp for you?"), ByLength())
    assert scored["score"].to_list() == [22.0, None, 21.0] and scored["reward_model"].to_list() == [
        "by length",
        None,
        "by length",
    ]
