"""The recommender's page says what does not pay, why, and what everything costs."""

from __future__ import annotations

import pytest
from tests.inspector.recommender_samples import sample_loop, sample_recommendation

from taiji.reporting.recommendation_page import (
    MORE,
    metric_title,
    recommendation_conclusion,
    recommendation_values,
    tone_of,
    write_recommendation,
)


def test_the_page_holds_findings_values_and_costs(tmp_path):
    seconds = {"retriever-popular": 3.0, "candidate_ranker": 7.5}
    path = tmp_path / "recommendation.html"
    write_recommendation(path, "mine", sample_recommendation(), sample_loop(), seconds, {"seed": "<1>"})
    text = path.read_text(encoding="utf-8")
    for told in (
        "<b>sasrec</b> does not beat popular", "Against popular &lt;few&gt;.", "There are 2.0 past interactions.",
        "True reward@10", "off-policy", "Closed loop", "popularity alone", "7.5", "no interval", "&lt;1&gt;", "90% intervals",
    ):  # fmt: skip
        assert told in text, told
    assert "<script" not in text and "<link" not in text, "nothing is loaded from elsewhere"


def test_what_is_not_there_is_left_out():
    shown = recommendation_values(sample_recommendation(world=False))
    assert shown["loop"] is None and shown["off_policy"] is None
    assert "True reward@10" not in shown["lists"]["columns"]
    empty = {**sample_recommendation(), "retrieval": [], "lists": [], "components": [], "slices": []}
    assert recommendation_values(empty)["verdicts"] == []


def test_marks_follow_the_paired_intervals():
    shown = recommendation_values(sample_recommendation())
    lists = {row["name"]: row["cells"] for row in shown["lists"]["rows"]}
    place = shown["lists"]["columns"].index("NDCG@10")
    assert lists["without sasrec"][place]["mark"] == "▼" and lists["all components"][place]["mark"] == ""
    assert shown["verdicts"][0]["mark"] == "open", "not beaten is not worse"
    assert shown["path"][0] == {"step": "retrieve: popular", "candidates": 20.0, "milliseconds": 0.5, "seconds": None}
    assert shown["path"][-1]["milliseconds"] == pytest.approx(5.75)
    assert metric_title("ndcg@10") == "NDCG@10" and metric_title("coverage@5") == "Coverage@5"
    gap = {"low": 0.1, "high": 0.2}
    assert tone_of(gap) == "better" and tone_of(gap, judged=False) == "different" and tone_of(None) == ""


def test_advice_follows_the_ablation_of_the_list():
    """The first of true reward and NDCG decides; a component whose effect is not shown is named as such."""

    def row(arm, low, high, metric="ndcg@10"):
        gap = {"against": "all components", "value": (low + high) / 2, "low": low, "high": high}
        return {"arm": arm, "metric": metric, "value": 0.5, "low": 0.4, "high": 0.6, "difference": gap}

    def advice(*rows):
        found = {**sample_recommendation(), "components": [], "lists": [row("popularity alone", 0, 0.1), *rows]}
        return recommendation_conclusion(found).advice

    rows = [row("without a", -0.2, -0.1), row("without b", 0.1, 0.2), row("ranker without c", -0.1, 0.1)]
    assert advice(*rows).startswith(
        "Keep a: the list is worse without it. Leave out b: the list is better without it. No effect of c"
    )
    reward = [row("without a", 0.1, 0.2, "true_reward@10"), row("popularity alone", 0, 0.1, "true_reward@10")]
    assert advice(*rows, *reward).startswith("Leave out a:")
    assert advice(row("all components", -0.2, -0.1)) == MORE, "nothing was left out"
    pair = advice(row("without a", -0.2, -0.1), row("without b", -0.2, -0.1))
    assert pair == "Keep a and b: the list is worse without each of them."


def test_the_conclusion_answers_first_about_the_whole_list():
    found = sample_recommendation()
    gap = {"against": "all components", "value": -0.2, "low": -0.3, "high": -0.1}
    alone = {**found["lists"][2], "arm": "popularity alone", "difference": gap}
    found["lists"].append(alone)
    reached = recommendation_conclusion(found)
    assert reached.asked == f"Does this recommender beat popularity on {found['data']}?"
    assert (
        reached.answers[0].text.startswith("Yes: ")
        and "+0.2000 [+0.1000, +0.3000] True reward@10" in reached.answers[0].text
    )
    assert reached.answers[0].mark == "▲" and reached.advice.endswith("Serve the lists with `taiji serve`.")
    assert any("sasrec" in answer.text and answer.mark == "○" for answer in reached.answers[1:])
    gap["high"] = 0.1
    open_ = recommendation_conclusion(found)
    assert open_.answers[0].text.startswith("Not shown: ") and "taiji serve" not in open_.advice
    assert recommendation_conclusion({**found, "requests": 0}) is None
