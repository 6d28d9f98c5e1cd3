"""A label that a log declares beside clicks has its rows in every place that shows metrics."""

from __future__ import annotations

import re

import numpy as np
import polars as pl
import pytest
from tests.reporting.samples import sample_metrics

from taiji.data.tasks import CLICK, Task
from taiji.inspector import compare
from taiji.metrics.ranker_evaluation import evaluate_rankers
from taiji.reporting.report import render_report
from taiji.reporting.summary import check_metrics, findings, goal_of, heads_of, metrics_of
from taiji.reporting.terminal_summary import print_summary

WATCHED = Task(name="watch_seconds", kind="duration")


@pytest.fixture(scope="module")
def metrics():
    random = np.random.default_rng(0)
    users, taste = np.repeat(np.arange(40), 20), random.normal(size=800)
    frame = pl.DataFrame(
        {"user": users, "time": users % 3, "click": (taste > 0.5).astype(int), "watch_seconds": taste**2}
    )
    predictions = {
        arm: pl.DataFrame({"click": random.random(800), "watch_seconds": taste**2 + noise * random.random(800)})
        for arm, noise in (("none", 4.0), ("taiji", 0.1))
    }
    rows = evaluate_rankers(frame, predictions, tasks=(CLICK, WATCHED), resamples=50)
    return sample_metrics() | {"ranking": rows}


def test_report_has_a_table_and_differences_of_every_label(metrics):
    page = render_report(metrics)
    headings = [re.sub(r"<[^>]+>", "", text) for text in re.findall(r"<th>(.*?)</th>", page)]
    assert {"XAUC", "XAUC within users", "Mean absolute error", "Root mean squared error"} <= set(headings)
    assert any(text.startswith("all · watch seconds") for text in headings)
    panels = re.findall(r"<h3>([^<]+) <small>([^<]+)</small></h3>", page)
    assert [text for text in panels if "watch seconds" in text[1]] == [
        ("XAUC", "watch seconds; higher is better"),
        ("Mean absolute error", "watch seconds; lower is better"),
    ]
    assert ("NDCG@10", "click; higher is better") in panels


def test_terminal_shows_one_metric_of_every_further_label(metrics, capsys):
    print_summary(metrics)
    out = capsys.readouterr().out
    words = " ".join(out.split())
    assert "watch seconds XAUC" in words and "click Log-loss" in words and "absolute error" not in words
    run = check_metrics(metrics)
    assert findings(run)[0].startswith("taiji against none, click AUC ")
    assert heads_of(run) == ["click", "watch_seconds"]
    assert metrics_of(run, "watch_seconds", full=False) == ["watch_seconds xauc", "watch_seconds mae"]
    assert [goal_of(f"watch_seconds {name}") for name in ("xauc", "rmse", "calibration")] == ["high", "low", "one"]


def test_two_runs_are_compared_in_every_label(metrics):
    run = check_metrics(metrics)
    titles = [group["title"] for group in compare._rankers(run, run)]
    assert titles[0] == "AUC, click, all users"
    assert titles[-5:] == [
        f"{metric}, watch seconds, all users"
        for metric in (
            "XAUC",
            "XAUC within users",
            "Mean absolute error",
            "Root mean squared error",
            "Predicted / observed",
        )
    ]


def test_metrics_that_are_not_known_here_are_shown_by_their_key(metrics):
    rows = [dict(row, metric=row["metric"].replace("rmse", "spearman")) for row in metrics["ranking"]]
    run = check_metrics(metrics | {"ranking": rows})
    assert metrics_of(run, "watch_seconds")[-1] == "watch_seconds spearman"
    assert "<th>spearman</th>" in render_report(metrics | {"ranking": rows})
