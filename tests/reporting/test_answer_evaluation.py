"""Answers worth knowing in advance: perfect, malformed, wrong, and everything in between."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from tests.reporting.samples import sample_metrics
from tests.small_shops import WordEmbedder, build, examples, micros

from taiji.core.errors import TaijiError
from taiji.reasoning.answers import format_completion, format_set
from taiji.reasoning.prompts import item_line
from taiji.reporting.answer_evaluation import _rows, evaluate_answers, fold
from taiji.reporting.catalogue import Catalogue
from taiji.reporting.summary import check_metrics

LOG = [(u, i, d) for u in range(5) for d, i in enumerate([0, 2, 4, u % 4])]
ROWS = examples([(0, 9, 1), (1, 9, 3), (2, 9, 5), (3, 9, 1), (4, 9, 3)])


def table(rows):
    return {(row["model"], row["metric"]): row for row in rows}


def judge(users, items, as_ofs):
    assert (as_ofs == micros(9)).all() and len(users) == len(items)
    return (items + 1) / 100


def answers(dataset, rows=ROWS):
    perfect = [format_completion("Because.", item_line(dataset, t)) for t in rows["target"]]
    sft = {2: "<think>x</think><answer></answer>", 4: "<think>hm"}
    return {
        "base": ["no idea"] * len(rows),
        "sft": [sft.get(place % 5, text) for place, text in enumerate(perfect)],
        "aligned": perfect,
    }


def test_perfect_malformed_and_mixed_answers():
    dataset = build(LOG, n_items=200)
    found = table(evaluate_answers(dataset, ROWS, answers(dataset), WordEmbedder(), judge, resamples=200))
    for metric in ("category_l1", "category_l2", "hit@50", "hit@100", "format"):
        assert found["aligned", metric]["value"] == 1 and found["aligned", metric]["low"] > 0.39
        assert found["base", metric]["value"] == 0 and found["base", metric]["high"] < 0.75
    assert found["sft", "category_l1"]["value"] == pytest.approx(3 / 5)
    assert found["sft", "category_l2"]["value"] == pytest.approx(3 / 4)  # item 5 has no second level: not counted
    assert found["sft", "category_l2"]["n"] == 4
    assert found["sft", "format"]["value"] == pytest.approx(3 / 5)
    assert found["base", "ctcvr"]["value"] == 0
    assert (
        found["aligned", "ctcvr"]["value"]
        == pytest.approx(np.mean([2, 4, 6, 2, 4]) / 100)
        == found["true item", "ctcvr"]["value"]
    )
    assert found["aligned", "grounding"]["value"] == pytest.approx(1, abs=1e-5)
    assert found["aligned", "grounding_low"]["value"] == 0
    assert ("base", "grounding") not in found


@pytest.mark.parametrize("depth", [0, 1, 5])
def test_metrics_follow_the_data_s_category_levels(depth):
    dataset = build(LOG, n_items=200)
    names = [f"category_l{level + 1}" for level in range(depth)]
    kinds = [pl.format("{} {}", pl.lit(name), pl.col("item") % (level + 2)) for level, name in enumerate(names)]
    items = dataset.items.drop("category_l1", "category_l2", "category_l3")
    dataset = replace(
        dataset, items=items.with_columns(kind.alias(name) for kind, name in zip(kinds, names)), given_levels=None
    )
    wrong = [format_completion("", item_line(dataset, (t + 7) % 9)) for t in ROWS["target"]]
    perfect = answers(dataset)["aligned"]
    found = table(evaluate_answers(dataset, ROWS, {"base": wrong, "aligned": perfect}, WordEmbedder(), resamples=50))
    levels = dataset.items.select(names).rows()
    for place, name in enumerate(names):
        same = [levels[(t + 7) % 9][place] == levels[t][place] for t in ROWS["target"]]
        assert found["aligned", name]["value"] == 1 and found["base", name]["value"] == pytest.approx(np.mean(same))
        assert found["popularity", name]["n"] == 5
    assert {metric for _, metric in found if metric.startswith("category_l")} == set(names)
    assert found["aligned", "format"]["value"] == 1


def test_models_are_compared_with_the_first_in_pairs_and_floors_stand_beside():
    dataset = build(LOG, n_items=200)
    rows = evaluate_answers(dataset, ROWS, answers(dataset), WordEmbedder(), judge, resamples=200)
    found = table(rows)
    gap = found["aligned", "format"]["difference"]
    assert (gap["against"], gap["value"], gap["high"], gap["method"]) == ("base", 1.0, 1.0, "exact binomial")
    assert gap["low"] == pytest.approx(1 - 2 * (1 - 0.025 ** (1 / 5))), "five users are no certainty"
    assert found["sft", "format"]["difference"]["reason"] == "too few users (5; at least 10 are needed)"
    assert "difference" not in found["base", "format"] and "difference" not in found["popularity", "hit@50"]
    assert {row["model"]: row["kind"] for row in rows} == {
        **dict.fromkeys(("base", "sft", "aligned"), "model"),
        **dict.fromkeys(("popularity", "own favourite", "own category", "co-occurrence", "mean history"), "baseline"),
        "true item": "oracle",
    }
    assert rows == evaluate_answers(dataset, ROWS, answers(dataset), WordEmbedder(), judge, resamples=200)


def test_models_are_compared_with_every_baseline_on_the_same_users():
    dataset = build([(u, i, d) for u in range(30) for d, i in enumerate([0, 2, 4, u % 4])], n_items=200)
    asked = examples([(u, 9, 1 + 2 * (u % 3)) for u in range(30)])
    rows = evaluate_answers(dataset, asked, answers(dataset, asked), WordEmbedder(), judge, resamples=200)
    found, five = table(rows), {"popularity", "own favourite", "own category", "co-occurrence", "mean history"}
    for model in ("base", "sft", "aligned"):
        assert {gap["against"] for gap in found[model, "category_l1"]["competitors"]} == five
        assert {gap["against"] for gap in found[model, "ctcvr"]["competitors"]} == five - {"own category"}
        assert "competitors" not in found[model, "format"], "no baseline has a format"
        for metric in ("category_l1", "hit@100", "ctcvr"):
            for gap in found[model, metric]["competitors"]:
                own, baseline = found[model, metric], found[gap["against"], metric]
                assert gap["value"] == pytest.approx(own["value"] - baseline["value"])
                assert "few" in gap["reason"] if gap["low"] is None else gap["low"] <= gap["value"] <= gap["high"]
    assert not any("competitors" in row for row in rows if row["kind"] != "model")
    narrow = next(gap for gap in found["aligned", "ctcvr"]["competitors"] if gap["against"] == "own favourite")
    apart = (found["aligned", "ctcvr"]["low"] - found["own favourite", "ctcvr"]["high"], narrow["low"])
    assert apart[0] < apart[1], "paired: narrower than the two intervals apart"
    check_metrics({**sample_metrics(0), "llm": rows})


def test_without_a_judge_there_is_no_ctcvr():
    dataset = build(LOG)
    assert "ctcvr" not in {
        row["metric"] for row in evaluate_answers(dataset, ROWS, answers(dataset), WordEmbedder(), resamples=20)
    }


def test_levels_are_folded_and_survive_the_answer_format():
    assert fold("  Soft\tDRINKS ") == fold("soft drinks")
    assert fold("Kids; Baby <small>") == fold("kids, baby (small)")
    assert fold(None) is None


def test_items_of_one_text_share_a_place_and_the_popular_one_stands_for_them():
    dataset = build(
        [(0, 5, 1), (0, 4, 1), (1, 5, 2)],
        titles=["Red apple", "Green pear", "Rye loaf", "Wheat roll", "Soap", "Soap"],
    )
    catalogue = Catalogue(dataset, WordEmbedder(), micros(3))
    found = catalogue.search(catalogue.vectors[[4, 0]], np.array([4, 5]))
    assert found.item.tolist() == [5, 0]
    assert found.above[0] == 0 and found.tied[0] == 2
    assert found.tied[1] == 2


def test_search_does_not_depend_on_blocks(monkeypatch):
    dataset = build(LOG, n_items=60)
    catalogue = Catalogue(dataset, WordEmbedder(), micros(9))
    queries, targets = (
        WordEmbedder().encode(["apple", "soap bar", "Thing 12", "bread loaf"]),
        np.array([0, 4, 12, 2]),
    )
    whole = catalogue.search(queries, targets)
    monkeypatch.setattr("taiji.reporting.catalogue.SEARCH_BLOCK", 60)
    parts = catalogue.search(queries, targets)
    assert all((getattr(whole, name) == getattr(parts, name)).all() for name in ("item", "above", "tied"))


def test_mismatched_input_is_explained():
    dataset = build(LOG)
    with pytest.raises(TaijiError, match="do not match"):
        evaluate_answers(dataset, ROWS, {"base": ["x"]}, WordEmbedder())
    with pytest.raises(TaijiError, match="no example"):
        evaluate_answers(dataset, ROWS.head(0), {"base": []}, WordEmbedder())


def test_sets_are_means_over_their_intents_and_cover_what_came_next():
    dataset = build(LOG, n_items=200)
    rows = ROWS.with_columns(targets=pl.Series([[1, 3], [3, 5], [5, 1], [1, 7], [3, 9]], dtype=pl.List(pl.UInt32)))
    lines = [[item_line(dataset, item) for item in items] for items in rows["targets"]]
    wrong = item_line(dataset, 100)
    said = {
        "whole": [format_completion("", format_set(two)) for two in lines],
        "half": [format_completion("", format_set([two[0], wrong])) for two in lines],
        "twice": [format_completion("", format_set([two[0], two[0]])) for two in lines],
        "bad": [two[0] for two in lines],
    }
    found = table(evaluate_answers(dataset, rows, said, WordEmbedder(), judge, resamples=20, most=4))
    assert found["whole", "coverage"]["value"] == pytest.approx(1, abs=1e-5)
    assert found["half", "coverage"]["value"] < 1 and found["bad", "coverage"]["value"] == 0
    assert found["twice", "redundancy"]["value"] == pytest.approx(1, abs=1e-4)
    assert found["twice", "intents"]["value"] == 1 and found["half", "intents"]["value"] == 2
    assert found["half", "ctcvr"]["value"] == pytest.approx(np.mean([(2 + 101) / 2, 52.5, 53.5, 51.5, 52.5]) / 100)
    assert found["twice", "category_l1"]["value"] == 1 and found["bad", "format"]["value"] == 0
    levels = dataset.items["category_l1"]
    same = np.mean([(1 + (levels[100] == levels[items[0]])) / 2 for items in rows["targets"].to_list()])
    assert found["half", "category_l1"]["value"] == pytest.approx(same)
    assert found["half", "hit@50"]["value"] == 1
    assert ("bad", "redundancy") not in found and ("popular", "coverage") not in found
    assert any(kind == "coverage" and row["kind"] == "baseline" for (_, kind), row in found.items())


def test_a_first_model_without_a_value_is_no_reference_and_no_other_takes_its_place():
    users, good = np.repeat(np.arange(20), 3), np.linspace(0, 1, 60)
    tables = [
        ("base", "model", {"grounding": np.full(60, np.nan)}),
        ("sft", "model", {"grounding": good}),
        ("aligned", "model", {"grounding": good + 0.1}),
    ]
    rows = _rows(tables, {}, users, 50, 0.95, 0)
    assert {row["model"]: row.get("difference") for row in rows} == {"sft": None, "aligned": None}
