"""The schema of ``metrics.json``, what is said about differences, and the terminal table."""

from __future__ import annotations

import json

import pytest
from tests.evaluation.samples import sample_metrics

from taiji.errors import TaijiError
from taiji.evaluation.summary import (
    Difference,
    Figure,
    check_metrics,
    digits_for,
    figure_text,
    findings,
    number_text,
    print_summary,
    verdict,
)


def gap(low, high, value=None):
    return Difference(against="none", value=(low + high) / 2 if value is None else value, low=low, high=high)


def test_the_sample_survives_json_and_passes():
    run = check_metrics(json.loads(json.dumps(sample_metrics(), allow_nan=False)))
    assert run.split.rows["users"] == 2469 and len(run.alignment.steps) == 40


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
    assert verdict(Difference(against="x", value=0.1, low=None, high=None)) == "too few users to tell"


def test_numbers_carry_the_digits_their_interval_deserves():
    assert number_text(-0.00001, 3) == "0.000" and number_text(-0.25, 2, signed=True) == "−0.25"
    assert figure_text(gap(0.00002, 0.0026), signed=True).endswith("[+0.00002, +0.00260]")
    assert figure_text(Figure(metric="auc", value=None, low=None, high=None, n=0)) == "–"
    assert figure_text(Figure(metric="auc", value=0.5, low=None, high=None, n=1)) == "0.5000"
    assert digits_for([Figure(metric="a", value=0.5, low=0.4, high=0.6, n=9)]) == 3
    assert digits_for([Figure(metric="a", value=0.003, low=0.0029, high=0.0031, n=9)]) == 5


def test_findings_name_the_rival_and_say_when_nothing_is_shown():
    lines = findings(check_metrics(sample_metrics()))
    assert any(
        line.startswith("taiji against history_mean, click AUC −") and line.endswith("interval includes zero")
        for line in lines
    )
    assert any(line.startswith("aligned against base, category L1 +") and line.endswith("better") for line in lines)


def test_the_terminal_table_shows_figures_with_intervals(capsys):
    print_summary(sample_metrics())
    text = capsys.readouterr().out
    for expected in (
        "0.331",
        "0.278–0.384",
        "· popularity",
        "history_mean",
        "interval includes zero",
        "83 of 192",
        "total 744",
    ):
        assert expected in text
    assert "…" not in text


def test_an_empty_run_prints_without_an_error(capsys):
    print_summary({**sample_metrics(0), "llm": [], "ranking": [], "seconds": {}})
    assert "demo" in capsys.readouterr().out
