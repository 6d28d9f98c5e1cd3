"""The recommender's page says what does not pay, why, and what everything costs."""

from __future__ import annotations

import pytest
from tests.inspector.recommender_samples import sample_loop, sample_recommendation

from taiji.reporting.recommendation_page import metric_title, recommendation_values, tone_of, write_recommendation


def test_the_page_holds_findings_values_and_costs(tmp_path):
    seconds = {"retriever-popular": 3.0, "candidate_ranker": 7.5}
    path = tmp_path / "recommendation.html"
    write_recommendation(path, "mine", sample_recommendation(), sample_loop(), seconds, {"seed": "<1>"})
    text = path.read_text(encoding="utf-8")
    for told in (
        "<b>sasrec</b> does not beat popular", "Against popular &lt;few&gt;.", "There are 2.0 past interactions.",
        "True reward@10", "off-policy", "Closed loop", "popularity alone", "7.5", "no interval", "&lt;1&gt;",
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
