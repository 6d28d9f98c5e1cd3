"""The audit: JSON-able, deterministic, and its lists point at planted leaks."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from taiji.errors import TaijiError
from taiji.reasoning.audit import audit_run, blind_rationales, decoys_of
from taiji.reasoning.selection import calibrate, score_rationales, select
from taiji.reasoning.settings import AuditSettings, SelectionSettings
from taiji.reasoning.writer import RuleWriter

SETTINGS = AuditSettings(controls=5, blind=2, resamples=50, worst=2)
SELECTION = SelectionSettings()


@pytest.fixture(scope="module")
def verdicts(lm, dataset, examples, prompts) -> pl.DataFrame:
    clean = RuleWriter(prompts).write(dataset, examples, 2, 0)
    leak = (pl.col("example") == "e0") & (pl.col("sample") == 0)
    title = dataset.items["title"][examples["target"][0]]
    planted = clean.with_columns(pl.when(leak).then(pl.col("rationale") + f" It is {title}.").otherwise("rationale").alias("rationale"))
    scored = score_rationales(lm, dataset, examples, planted, SELECTION, prompts)
    return select(scored, calibrate(scored, SELECTION), SELECTION)


def test_the_audit_says_everything(lm, dataset, examples, prompts, verdicts):
    report = audit_run(lm, dataset, examples, verdicts, SETTINGS, SELECTION, prompts, seed=0)
    json.dumps(report, allow_nan=False)
    assert report == audit_run(lm, dataset, examples, verdicts, SETTINGS, SELECTION, prompts, seed=0)
    assert report["rows"] == 12
    assert sum(report["verdicts"].values()) == 12
    assert report["lexical"]["title"] == pytest.approx(1 / 12)
    assert report["lexical"]["title: exact"] == pytest.approx(1 / 12)
    assert set(report["controls"]) >= {"answer", "own", "other", "shuffled", "empty", "own - answer"}
    assert report["controls"]["own"]["n"] == 5
    assert report["order"]["expected"] == ["answer", "own", "other", "shuffled"]
    assert report["decoys"]["specificity"]["value"] == pytest.approx(report["decoys"]["target lift"]["value"] - report["decoys"]["neighbourhood lift"]["value"])
    assert set(report["blind_gap"]) == {"teacher", "blind", "gap"}
    assert {len(rows) for name, rows in report["worst"].items() if name != "kept with the least lift"} <= {1, 2}
    assert {"rationale", "masked", "target", "verdict", "reasons"} <= set(report["worst"]["lowest perplexity"][0])


def test_own_control_equals_the_scores(lm, dataset, examples, prompts, verdicts):
    """The control arm of the true user is the perplexity that selection saw."""
    whole = audit_run(lm, dataset, examples, verdicts, SETTINGS.model_copy(update={"controls": 6, "blind": 0}), SELECTION, prompts, seed=0)
    first = verdicts.filter(pl.col("sample") == 0)
    assert whole["controls"]["own"]["value"] == pytest.approx(float(first["ppl"].log().mean()), rel=1e-4)
    assert whole["controls"]["empty"]["value"] == pytest.approx(float(first["ppl_none"].log().mean()), rel=1e-4)
    assert whole["blind_gap"] is None


def test_decoys_are_neighbours(dataset):
    """From the narrowest category that holds another item."""
    rng = np.random.default_rng(0)
    for target in range(dataset.n_items):
        chosen = decoys_of(dataset, target, 3, rng)
        assert chosen
        assert target not in chosen
        for level in ("category_l3", "category_l2", "category_l1"):
            value = dataset.items[level][target]
            if value is not None and (dataset.items[level] == value).sum() > 1:
                assert {dataset.items[level][i] for i in chosen} == {value}
                break


def test_blind_rationales_come_from_the_student_alone(lm, dataset, examples, prompts):
    frame = blind_rationales(lm, dataset, examples, prompts, 0)
    assert frame["teacher"].unique().to_list() == ["student"]
    other = blind_rationales(lm, dataset, examples.with_columns(pl.col("target").reverse()), prompts, 0)
    assert frame.equals(other)


def test_nothing_to_audit(lm, dataset, examples, prompts, verdicts):
    with pytest.raises(TaijiError, match="no rationales"):
        audit_run(lm, dataset, examples, verdicts[:0], SETTINGS, SELECTION, prompts, 0)
