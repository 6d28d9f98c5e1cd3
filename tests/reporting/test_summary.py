"""The schema of ``metrics.json``, what is said about differences, and the terminal table."""

from __future__ import annotations

import json

import pytest
from tests.reporting.samples import sample_metrics

from taiji.core.errors import TaijiError
from taiji.reporting.summary import (
    Difference,
    MetricValue,
    RationaleSummary,
    check_metrics,
    digits_for,
    findings,
    metric_text,
    verdict,
)


def gap(low, high, value=None):
    return Difference(against="none", value=(low + high) / 2 if value is None else value, low=low, high=high)


def test_the_sample_survives_json_and_passes():
    run = check_metrics(json.loads(json.dumps(sample_metrics(), allow_nan=False)))
    assert run.split.rows["users"] == 2469 and len(run.alignment.steps) == 40


def test_metrics_of_the_version_before_are_read():
    new = sample_metrics()
    text = json.dumps(new)
    for now, before in (("competitors", "rivals"), ("baseline", "floor"), ("oracle", "ceiling")):
        assert f'"{now}"' in text
        text = text.replace(f'"{now}"', f'"{before}"')
    assert check_metrics(json.loads(text)) == check_metrics(new)


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("split", None, "split"),
        ("llm", [{"model": "x"}], "llm.0.metric"),
        ("seconds", {"data": "long"}, "seconds.data"),
    ],
)
def test_a_wrong_form_is_named(key, value, named):
    metrics = sample_metrics()
    metrics[key] = value
    with pytest.raises(TaijiError, match=named):
        check_metrics(metrics)


def test_every_key_of_the_contract_is_required():
    for key in ("split", "rationales", "llm", "alignment", "ranking", "seconds"):
        metrics = sample_metrics()
        del metrics[key]
        with pytest.raises(TaijiError, match=key):
            check_metrics(metrics)


def test_verdicts_are_honest():
    assert verdict(gap(-0.1, 0.2)) == "interval includes zero"
    assert verdict(gap(0.0, 0.2)) == "interval includes zero"
    assert verdict(gap(0.1, 0.2)) == "better" and verdict(gap(-0.2, -0.1)) == "worse"
    assert verdict(gap(0.1, 0.2), "low") == "worse" and verdict(gap(-0.2, -0.1), "low") == "better"
    assert verdict(gap(0.1, 0.2), "one") == "different"
    assert verdict(Difference(against="x", value=0.1, low=None, high=None)) == "too few users"


def test_a_reason_or_an_identity_stands_in_place_of_a_verdict():
    few = Difference(against="x", value=0.1, low=None, high=None, reason="too few users (4; at least 10 are needed)")
    assert verdict(few) == "too few users (4; at least 10 are needed)"
    assert verdict(Difference(against="x", value=0.0, low=0.0, high=0.0, method="identity")) == "identical"
    assert verdict(gap(0.3, 0.3)) == verdict(gap(0.0, 0.0)) == "too few users", "of an earlier version"


def test_numbers_carry_the_digits_their_interval_deserves():
    assert metric_text(gap(0.00002, 0.0026), signed=True).endswith("[+0.00002, +0.00260]")
    assert metric_text(MetricValue(metric="auc", value=None, low=None, high=None, n=0)) == "–"
    assert metric_text(MetricValue(metric="auc", value=0.5, low=None, high=None, n=1)) == "0.5000"
    assert digits_for([MetricValue(metric="a", value=0.5, low=0.4, high=0.6, n=9)]) == 3
    assert digits_for([MetricValue(metric="a", value=0.003, low=0.0029, high=0.0031, n=9)]) == 5


def test_findings_name_the_rival_and_say_when_nothing_is_shown():
    lines = findings(check_metrics(sample_metrics()))
    assert any(
        line.startswith("taiji against history_mean, click AUC −") and line.endswith("interval includes zero")
        for line in lines
    )
    assert any(line.startswith("aligned against base, category L1 +") and line.endswith("better") for line in lines)


def test_the_last_model_is_held_against_the_best_floor_of_each_metric():
    lines = [line for line in findings(check_metrics(sample_metrics())) if "best baseline" in line]
    assert [line.split(" −")[0] for line in lines] == [
        "Category L1 of aligned against the best baseline, own category,",
        "Title hit@100 of aligned against the best baseline, co-occurrence,",
        "CTCVR of aligned against the best baseline, popularity,",
    ]
    assert lines[0].startswith("Category L1 of aligned against the best baseline, own category, −0.121 [−0.17")
    assert [line.rsplit(": ")[-1] for line in lines] == ["worse", "worse", "worse"]


def test_without_floors_or_their_differences_nothing_is_said_of_them():
    metrics = sample_metrics()
    for row in metrics["llm"]:
        row.pop("competitors", None)
    assert not any("baseline" in line for line in findings(check_metrics(metrics)))
    metrics["llm"] = [row for row in metrics["llm"] if row["kind"] == "baseline"]
    assert not any("baseline" in line for line in findings(check_metrics(metrics)))
    unknown = sample_metrics()
    for row in unknown["llm"]:
        if row["kind"] == "baseline":
            row["value"] = None
    assert not any("baseline" in line for line in findings(check_metrics(unknown)))


def test_kept_rationales_are_told_of_those_judged():
    run = check_metrics(sample_metrics())
    assert run.rationales.kept_text() == "83 of 144 kept (48 more set the threshold)"
    assert run.rationales.kept_text("rationales") == "83 of 144 rationales kept (48 more set the threshold)"
    assert RationaleSummary(written=1500, kept=1000, threshold=None).kept_text() == "1,000 of 1,500 kept"
