"""The audit: JSON-able, deterministic, and its lists point at planted leaks."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import polars as pl
import pytest

from taiji.core.errors import TaijiError
from taiji.reasoning import audit
from taiji.reasoning.audit import (
    CONTROLS,
    _interval,
    _order,
    audit_run,
    blind_rationales,
    decoys_of,
    leaking_shares,
    lexical_shares,
    said,
)
from taiji.reasoning.rule_writer import RuleWriter
from taiji.reasoning.selection import calibrate, score_rationales, select
from taiji.reasoning.settings import AuditSettings, SelectionSettings

SETTINGS = AuditSettings(controls=5, blind=2, resamples=50, worst=2)
SELECTION = SelectionSettings()


@pytest.fixture(scope="module")
def verdicts(lm, dataset, examples, prompts) -> pl.DataFrame:
    clean = RuleWriter(prompts).write(dataset, examples, 2, 0)
    leak = (pl.col("example") == "e0") & (pl.col("sample") == 0)
    title = dataset.items["title"][examples["target"][0]]
    planted = clean.with_columns(
        pl.when(leak).then(pl.col("rationale") + f" It is {title}.").otherwise("rationale").alias("rationale")
    )
    scored = score_rationales(lm, dataset, examples, planted, SELECTION, prompts)
    return select(scored, calibrate(scored, SELECTION), SELECTION)


def test_the_audit_says_everything(lm, dataset, examples, prompts, verdicts):
    report = audit_run(lm, dataset, examples, verdicts, SETTINGS, SELECTION, prompts, seed=0)
    json.dumps(report, allow_nan=False)
    assert report == audit_run(lm, dataset, examples, verdicts, SETTINGS, SELECTION, prompts, seed=0)
    assert report["rows"] == 12
    assert sum(report["leaking"].values()) == pytest.approx(1)
    assert sum(report["verdicts"].values()) == 12
    assert report["lexical"]["title"] == pytest.approx(1 / 12)
    assert report["lexical"]["title: exact"] == pytest.approx(1 / 12)
    assert set(report["controls"]) >= {"answer", "own", "other", "shuffled", "empty", "own - answer"}
    assert report["controls"]["own"]["n"] == 5
    assert report["order"]["expected"] == ["answer", "own", "other", "shuffled"]
    assert report["decoys"]["specificity"]["value"] == pytest.approx(
        report["decoys"]["target lift"]["value"] - report["decoys"]["neighbourhood lift"]["value"]
    )
    assert set(report["blind_gap"]) == {"teacher", "blind", "gap"}
    assert {len(rows) for name, rows in report["worst"].items() if name != "kept with the least lift"} <= {1, 2}
    assert {"rationale", "masked", "target", "verdict", "reasons"} <= set(report["worst"]["lowest perplexity"][0])


def test_cut_rationales_do_not_make_the_leakage_look_smaller():
    named = pl.DataFrame(
        {"rationale": ["a", "b"], "named": [["exact"], []], "forbidden": [[], []], "levels_named": [[], []],
         "leak_share": [0.9, 0.1], "ppl": [2.0, 3.0]},
        schema_overrides={name: pl.List(pl.String) for name in ("named", "forbidden", "levels_named")},
    )  # fmt: skip
    cut = named.with_columns(rationale=pl.lit(""), named=pl.lit([], pl.List(pl.String)), leak_share=None)
    whole = said(pl.concat([named, cut], how="vertical_relaxed"))
    assert lexical_shares(whole) == lexical_shares(named)
    assert leaking_shares(whole, 0.5) == leaking_shares(named, 0.5)
    assert said(cut).equals(cut)


def test_rationales_that_are_all_empty_are_said_to_be(lm, dataset, examples, prompts, verdicts):
    silent = score_rationales(
        lm, dataset, examples, verdicts.select("example", "sample", "teacher", rationale=pl.lit("")), SELECTION, prompts
    )
    report = audit_run(
        lm,
        dataset,
        examples,
        select(silent, calibrate(verdicts, SELECTION), SELECTION),
        SETTINGS,
        SELECTION,
        prompts,
        seed=0,
    )
    json.dumps(report, allow_nan=False)
    assert report["controls"]["own"] == {
        "value": None,
        "low": None,
        "high": None,
        "n": 0,
        "reason": "undefined: too few examples (0; at least 10 are needed)",
    }
    assert report["order"]["verdict"] == "not shown"
    assert report["order"]["says"] == "There are no rationales for the controls."
    assert report["leaking"]["no help"] == 1.0


@pytest.mark.parametrize(
    ("means", "width", "verdict", "says"),
    [
        ((1, 2, 3, 4), 0.1, "holds", "The controls have the expected order: answer < own < other < shuffled."),
        ((1, 2, 3, 4), 2.0, "not shown", "is not shown with 9 examples: the interval of answer < own and own < other and"),
        ((1, 2, 3, 3.05), 0.1, "not shown", "with 9 examples: the interval of other < shuffled includes zero"),
        ((1, 2, 3.05, 3), 0.1, "not shown", "with 9 examples: the interval of other < shuffled includes zero"),
        ((2, 1, 3, 4), 0.1, "reversed", "do NOT have the expected order: their perplexities show own < answer instead of"),
        ((2, 1, 3, 3.05), 0.1, "reversed", "do NOT have the expected order: their perplexities show own < answer instead of"),
        ((2, 1, 5, 9), 1.5, "not shown", "the interval of answer < own includes zero"),
    ],
    ids=["holds", "wide", "last unclear", "last turned unclear", "first turned", "first turned, last unclear", "first unclear"],
)  # fmt: skip
def test_the_order_is_said_plainly(means, width, verdict, says):
    values = dict(zip(CONTROLS, means))
    controls = {name: {"value": value, "low": value, "high": value, "n": 9} for name, value in values.items()}
    for one, other in pairwise(CONTROLS):
        gap = values[other] - values[one]
        controls[f"{other} - {one}"] = {"value": gap, "low": gap - width, "high": gap + width, "n": 9}
    order = _order(controls)
    assert says in order["says"]
    assert order["verdict"] == verdict
    told = {step["verdict"] for step in order["steps"]}
    assert (told == {"holds"}) == (verdict == "holds") and ("reversed" in told) == (verdict == "reversed")


def test_own_control_equals_the_scores(lm, dataset, examples, prompts, verdicts):
    """The control arm of the true user is the perplexity that selection saw."""
    whole = audit_run(
        lm,
        dataset,
        examples,
        verdicts,
        SETTINGS.model_copy(update={"controls": 6, "blind": 0}),
        SELECTION,
        prompts,
        seed=0,
    )
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


def test_every_interval_has_the_level_that_the_report_names(lm, dataset, examples, prompts, verdicts, monkeypatch):
    wide, narrow = (_interval(np.arange(20.0), resamples=200, level=level, seed=0) for level in (0.95, 0.5))
    assert wide["low"] < narrow["low"] < narrow["high"] < wide["high"]
    levels = []
    monkeypatch.setattr(audit, "_interval", lambda values, resamples, level, seed: levels.append(level) or wide)
    audit_run(lm, dataset, examples, verdicts, SETTINGS, SELECTION, prompts, seed=0, level=0.5)
    assert len(levels) > 10 and set(levels) == {0.5}


def test_one_example_has_no_interval_and_shows_nothing():
    alone = _interval(np.array([1.5, np.nan]), resamples=20, level=0.95, seed=0)
    reason = "too few examples (1; at least 10 are needed)"
    assert alone == {"value": 1.5, "low": None, "high": None, "n": 1, "reason": reason}
    controls = dict.fromkeys(CONTROLS, alone)
    controls |= {f"{other} - {one}": alone for one, other in pairwise(CONTROLS)}
    assert _order(controls)["verdict"] == "not shown"


def test_sets_are_audited_with_sets_of_decoys(lm, dataset, set_examples, set_prompts):
    rationales = RuleWriter(set_prompts).write(dataset, set_examples, 2, 0)
    scored = score_rationales(lm, dataset, set_examples, rationales, SelectionSettings(), set_prompts)
    verdicts = select(scored, calibrate(scored, SelectionSettings()), SelectionSettings())
    settings = AuditSettings(controls=4, decoys=2, blind=2, resamples=20)
    report = audit_run(lm, dataset, set_examples, verdicts, settings, SelectionSettings(), set_prompts, 0)
    assert report["controls"]["own"]["n"] == 4
    assert report["worst"]["lowest perplexity"][0]["target"].count("Item title") == 4
    rng = np.random.default_rng(0)
    for items in set_examples["targets"].to_list():
        assert not set(items) & {d for t in items for d in decoys_of(dataset, t, 9, rng, items)}
