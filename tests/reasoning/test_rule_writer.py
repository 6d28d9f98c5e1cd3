"""The rule-based writer: true facts, no title, no category that the history has not shown (its first level apart)."""

from __future__ import annotations

from types import SimpleNamespace

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.reasoning.conftest import build, examples_of

from taiji.core.errors import TaijiError
from taiji.data.dataset import Dataset
from taiji.reasoning.guards import find_mentions
from taiji.reasoning.prompts import student_prompt
from taiji.reasoning.rule_writer import RuleWriter, _focus, history_facts
from taiji.reasoning.settings import PromptSettings


@given(place=st.integers(0, 11), seed=st.integers(0, 9), in_view=st.booleans())
@settings(max_examples=25, deadline=None)
def test_it_never_gives_the_answer_away(dataset, lm, place, seed, in_view):
    examples = examples_of(dataset, place)
    prompts = PromptSettings(token_budget=2000)
    frame = RuleWriter(prompts, in_view).write(dataset, examples, 3, seed)
    assert len(frame) == 3 * len(examples)
    for (text,), (user, as_of, target) in zip(
        frame.select("rationale").iter_rows(),
        (row for row in examples.select("user", "as_of", "target").iter_rows() for _ in range(3)),
    ):
        item = dataset.items.row(target, named=True)
        shown = " ".join(m["content"] for m in student_prompt(dataset, user, as_of, prompts, lm.tokenizer).messages)
        found = find_mentions(text, item["title"], [item[f"category_l{i}"] or "" for i in (1, 2, 3)], shown)
        assert found.title == ()
        assert not found.levels[1]
        assert not found.levels[2]
        assert in_view or not found.levels[0]
        assert not found.forbidden


def test_the_facts_are_true(dataset):
    facts = history_facts(dataset, 0, 2**62, 6, 80)
    items, _ = dataset.history.before(0, 2**62, 6)
    rows = [dataset.items.row(int(i), named=True) for i in items]
    counts = {name: sum(r["category_l1"] == name for r in rows) for name in {r["category_l1"] for r in rows}}
    assert facts["total"] == 6
    assert facts["top_l1_count"] == counts[facts["top_l1"]] == max(counts.values())
    assert facts["last_title"] == rows[0]["title"]


@pytest.mark.parametrize("listed", [[40.0, 50.0, 5.0], [None] * 3], ids=["later prices in the catalogue", "none"])
def test_prices_are_those_that_the_prompt_shows(listed):
    items = {"item": [0, 1, 2], "item_id": ["a", "b", "c"], "title": ["Tea", "Jam", "Rice"], "price": listed}
    events = {
        "event": [0, 1, 2, 3], "user": [0] * 4, "item": [0, 1, 0, 2], "time": [10, 20, 90, 100], "exposed": [True] * 4,
        "click": [1] * 4, "conversion": [None] * 4, "matured_at": [10, 20, 90, 100], "price": [2.0, 3.0, 40.0, 5.0],
    }  # fmt: skip
    dataset = Dataset(
        pl.DataFrame(items, schema_overrides={"item": pl.UInt32, "price": pl.Float64}),
        pl.DataFrame({"user": [0], "user_id": ["u"]}, schema_overrides={"user": pl.UInt32}),
        pl.DataFrame(
            events,
            schema_overrides={
                "event": pl.UInt32,
                "user": pl.UInt32,
                "item": pl.UInt32,
                "click": pl.Int8,
                "conversion": pl.Int8,
            },
        ),
        "d",
        "shop",
    )
    facts = history_facts(dataset, 0, 50, 12, 80)
    assert (facts["price_middle"], facts["price_high"]) == ("3.00", "3.00")


def test_a_second_level_is_a_habit_only_under_its_own_first_level():
    items = pl.DataFrame({"category_l1": ["Phones", "Cameras"], "category_l2": ["Accessories", "Accessories"]})
    of = SimpleNamespace(levels=("category_l1", "category_l2"), items=items)
    facts = {"rows": [{"l1": "Phones", "l2": "Accessories"}] * 3}
    assert _focus(of, facts, [0]) == {"focus": "Phones / Accessories", "fresh": False}
    assert _focus(of, facts, [1]) == {"focus": "Cameras", "fresh": True}


def test_the_answer_in_view_decides_the_conclusion(dataset, examples):
    seen = RuleWriter(PromptSettings()).write(dataset, examples, 1, 0)
    blind = RuleWriter(PromptSettings(), answer_in_view=False).write(dataset, examples, 1, 0)
    for text, target in zip(seen["rationale"], examples["target"]):
        assert dataset.items["category_l1"][target] in text
    swapped = examples.with_columns(pl.col("target").reverse())
    assert RuleWriter(PromptSettings(), answer_in_view=False).write(dataset, swapped, 1, 0).equals(blind)
    assert not RuleWriter(PromptSettings()).write(dataset, swapped, 1, 0).equals(seen)


@pytest.mark.parametrize("domain", ["shop", "films", "books"])
def test_every_domain_and_samples_differ(domain):
    data = build(domain)
    frame = RuleWriter(PromptSettings()).write(data, examples_of(data), 6, 0)
    for texts in frame.group_by("example").agg("rationale")["rationale"]:
        assert len(set(texts)) > 1
    assert frame["rationale"].str.ends_with(".").all()
    assert not frame["rationale"].str.contains("{", literal=True).any()


def test_no_history_no_words(dataset):
    nobody = pl.DataFrame({"example": ["e"], "user": [0], "as_of": [0], "target": [5]})
    assert RuleWriter(PromptSettings(), answer_in_view=False).write(dataset, nobody, 1, 0)["rationale"].to_list() == [
        ""
    ]


def test_a_broken_template(dataset, examples, tmp_path):
    (tmp_path / "writer.j2").write_text("[opening]\nHello\n")
    with pytest.raises(TaijiError, match="lacks sections"):
        RuleWriter(PromptSettings(templates=tmp_path)).write(dataset, examples, 1, 0)
