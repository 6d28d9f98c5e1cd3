"""Selection: exact perplexities, calibration, verdicts, and the planted leak on a world where everything is known."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
import torch

from taiji.core.errors import TaijiError
from taiji.reasoning.answers import format_completion
from taiji.reasoning.prompts import item_line, student_prompts, true_answers
from taiji.reasoning.rule_writer import RuleWriter
from taiji.reasoning.selection import (
    ORDERS,
    Calibration,
    answer_perplexities,
    calibrate,
    count_reasons,
    score_rationales,
    select,
)
from taiji.reasoning.settings import SelectionSettings
from taiji.reasoning.teachers import rationale_frame

GUARDED, PLAIN = SelectionSettings(), SelectionSettings(rule="plain")


@pytest.fixture(scope="module")
def scored(lm, dataset, examples, prompts) -> pl.DataFrame:
    texts = [[f"They buy item{t}word thing{t} next.", "They mostly buy Garden things.", ""] for t in examples["target"]]
    return score_rationales(
        lm, dataset, examples, rationale_frame(examples["example"].to_list(), texts, "test"), GUARDED, prompts
    )


def test_perplexity_equals_the_definition(lm, dataset, examples, prompts, scored):
    """exp of minus the mean log-probability of the answer's tokens, found by characters, one forward pass a text."""
    sheets = student_prompts(dataset, examples, prompts, lm.tokenizer)
    for row in scored.with_row_index().iter_rows(named=True):
        number = row["index"] // 3
        answer = item_line(dataset, examples["target"][number])
        text = sheets["prompt"][number] + format_completion(row["rationale"], answer)
        encoding = lm.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        with torch.inference_mode():
            logs = torch.log_softmax(lm.model(torch.tensor([encoding.input_ids])).logits[0].double(), -1)
        start, end = text.index(answer, len(sheets["prompt"][number])), text.rindex("</answer>")
        chosen = [i for i, (a, b) in enumerate(encoding.offset_mapping) if a >= start and b <= end and b > a]
        expected = math.exp(-np.mean([float(logs[i - 1, encoding.input_ids[i]]) for i in chosen]))
        assert row["ppl"] == pytest.approx(expected, rel=1e-5)


def test_scores_hang_together(scored):
    for row in scored.iter_rows(named=True):
        assert row["lift"] == pytest.approx(math.log(row["ppl_values_none"] / row["ppl_values_masked"]))
        gone = math.log(row["ppl_values_masked"] / row["ppl_values"])
        if row["leak_share"] is not None:
            assert row["leak_share"] == pytest.approx(gone / math.log(row["ppl_values_none"] / row["ppl_values"]))
        if row["rationale"] == "":
            assert row["ppl"] == pytest.approx(row["ppl_none"], rel=1e-6)
            assert row["leak_share"] is None
        if not row["named"] and row["masked"] == row["rationale"]:
            assert row["ppl_masked"] == row["ppl"]
    naming = scored.filter(pl.col("sample") == 0)
    assert naming["named"].list.contains("exact").all()
    assert not naming["masked"].str.contains("item").any()
    assert scored.filter(pl.col("sample") > 0)["named"].list.len().sum() == 0


def test_chunks_give_the_same(lm, dataset, examples, prompts, scored):
    texts = scored.select("example", "sample", "rationale", "teacher")
    parts = [
        score_rationales(lm, dataset, examples, texts[s : s + 5], GUARDED.model_copy(update={"batch_size": 2}), prompts)
        for s in range(0, len(texts), 5)
    ]
    again = pl.concat(parts)
    assert again["named"].to_list() == scored["named"].to_list()
    for name in ("ppl", "ppl_title", "ppl_category", "ppl_masked", "ppl_none", "lift"):
        np.testing.assert_allclose(again[name].to_numpy(), scored[name].to_numpy(), rtol=1e-4, atol=1e-5)


def test_title_and_category_are_scored_apart(lm):
    answer = "Item title: milk; Category L1: FOOD; L2: DAIRY"
    with_category, without = (
        answer_perplexities(lm, ["buy:\n"], ["because"], [text], 4).row(0, named=True)
        for text in (answer, "Item title: milk")
    )
    assert with_category["ppl_category"] > 0
    assert without["ppl_category"] is None
    assert with_category["ppl_title"] == pytest.approx(without["ppl_title"], rel=1e-5)
    assert without["ppl_values"] == pytest.approx(without["ppl_title"], rel=1e-6)
    ends = sorted([with_category["ppl_title"], with_category["ppl_category"]])
    assert ends[0] <= with_category["ppl_values"] <= ends[1]


def test_lift_is_blind_to_the_labels(lm, dataset, examples, prompts, scored, monkeypatch):
    """A model that pays for every rationale at the labels alone finds neither lift nor loss."""
    from taiji.language import score

    honest = score.score_completions

    def taxed(lm, sheets, texts, batch_size, description=""):
        found = honest(lm, sheets, texts, batch_size, description)
        for text, one in zip(texts, found):
            if not text.startswith("</think>"):  # an empty rationale, its `<think>` in the prompt
                at = text.index("Item title")
                one.logprobs[(one.offsets[:, 0] >= at) & (one.offsets[:, 1] <= at + len("Item title:"))] -= 3.0
        return found

    monkeypatch.setattr(score, "score_completions", taxed)
    again = score_rationales(
        lm, dataset, examples, scored.select("example", "sample", "rationale", "teacher"), GUARDED, prompts
    )
    np.testing.assert_allclose(again["lift"].to_numpy(), scored["lift"].to_numpy(), atol=1e-5)
    said = scored["rationale"].to_numpy() != ""
    assert (again["ppl"].to_numpy()[said] > scored["ppl"].to_numpy()[said]).all()


def row(**values) -> dict:
    base = {
        "example": "e",
        "sample": 0,
        "rationale": "r",
        "ppl": 2.0,
        "ppl_masked": 2.0,
        "lift": 0.1,
        "leak_share": 0.0,
        "named": [],
        "levels_named": [],
        "forbidden": [],
    }
    return {**base, **values}


@pytest.mark.parametrize(
    ("values", "plain", "guarded"),
    [
        ({}, "keep", "keep"),
        ({"rationale": " "}, "reject", "reject"),
        ({"ppl": 3.0, "ppl_masked": 3.0}, "reject", "reject"),
        ({"ppl": 2.5, "ppl_masked": 2.5}, "reject", "reject"),  # strictly below
        ({"ppl": 1.5, "ppl_masked": 4.0, "named": ["exact"]}, "keep", "reject"),
        ({"forbidden": ["target item"]}, "keep", "reject"),
        ({"lift": 0.0}, "keep", "reject"),
        ({"lift": -0.2}, "keep", "reject"),
        ({"ppl": 1.2}, "keep", "review"),
        ({"ppl": 1.2, "named": ["fuzzy"]}, "keep", "reject"),
        ({"levels_named": ["L1", "L3"], "leak_share": 0.8}, "keep", "reject"),
        ({"levels_named": ["L1", "L3"], "leak_share": 0.2}, "keep", "keep"),
        ({"ppl": float("nan"), "ppl_masked": float("nan"), "lift": float("nan")}, "reject", "reject"),
    ],
)
def test_verdicts(values, plain, guarded):
    frame = pl.DataFrame(
        [row(**values)], schema_overrides={name: pl.List(pl.String) for name in ("named", "levels_named", "forbidden")}
    )
    for settings, expected in ((PLAIN, plain), (GUARDED, guarded)):
        judged = select(frame, Calibration(2.5, "ppl", 0.5, 10, "x"), settings).row(0, named=True)
        assert judged["verdict"] == expected
        assert judged["kept"] == (expected == "keep") == (not judged["reasons"])
    assert select(frame, Calibration(2.5, "ppl", 0.5, 10, "x"), SelectionSettings(rule="none"))["kept"].all()


@pytest.mark.parametrize("rule", ["none", "plain", "guarded"])
@pytest.mark.parametrize(
    ("ended", "reason"),
    [
        ("cut", "cut at the length limit"),
        ("refused", "refused by the teacher"),
        ("filtered", "stopped by a content filter"),
    ],
)
def test_what_the_teacher_did_not_say_to_its_end_is_never_kept(rule, ended, reason):
    lists = {name: pl.List(pl.String) for name in ("named", "levels_named", "forbidden")}
    frame = pl.DataFrame([row(ended=ended), row(ended="whole"), row(ended="shortened")], schema_overrides=lists)
    verdicts = select(frame, Calibration(2.5, "ppl_masked", 0.5, 4, "x"), SelectionSettings(rule=rule))
    assert verdicts["kept"].to_list() == [False, True, True]
    assert count_reasons(verdicts) == {reason: 1}


def test_the_threshold_keeps_half_of_the_calibration(tmp_path):
    frame = pl.DataFrame(
        [row(sample=i, ppl=float(i + 2), ppl_masked=float(2 * i + 1)) for i in range(5)]
        + [row(sample=9, rationale="", ppl=99.0)]
    )
    plain, guarded = calibrate(frame, PLAIN), calibrate(frame, GUARDED)
    assert (plain.threshold, plain.measure, plain.rationales) == (4.0, "ppl", 5)
    assert (guarded.threshold, guarded.measure) == (5.0, "ppl_masked")
    # Two of five lie below the median. Where a guard speaks against the best, the two best of the others are kept;
    # where three speak, the two that are left.
    one = frame.with_columns(lift=pl.when(pl.col("sample") == 0).then(-1.0).otherwise(0.1))
    first = select(one, calibrate(one, GUARDED), GUARDED)
    assert first.filter("kept")["sample"].to_list() == [1, 2]
    few = frame.with_columns(
        forbidden=pl.when(pl.col("sample") < 3).then(pl.lit(["answer"])).otherwise(pl.lit([], dtype=pl.List(pl.String)))
    )
    assert select(few, calibrate(few, GUARDED), GUARDED).filter("kept")["sample"].to_list() == [3, 4]
    nobody = frame.with_columns(lift=pl.lit(-1.0))
    assert calibrate(nobody, GUARDED).threshold == 5.0
    plain.save(tmp_path / "calibration.json")
    assert Calibration.load(tmp_path / "calibration.json") == plain
    with pytest.raises(TaijiError, match="no rationale"):
        calibrate(frame[:0], PLAIN)


def test_rationales_of_nobody(lm, dataset, examples, prompts):
    with pytest.raises(TaijiError, match="belong to no example"):
        score_rationales(lm, dataset, examples, rationale_frame(["nobody"], [["text"]], "t"), GUARDED, prompts)


def test_planted_titles_are_rejected_and_clean_rationales_spared(lm, dataset, examples, prompts):
    clean = RuleWriter(prompts, answer_in_view=False).write(dataset, examples, 4, 0)
    titles = dict(zip(examples["example"], (dataset.items["title"][t] for t in examples["target"])))
    planted = clean.with_columns(
        pl.when(pl.col("sample") == 0)
        .then(pl.col("rationale") + " So: " + pl.col("example").replace_strict(titles) + ".")
        .otherwise("rationale")
        .alias("rationale")
    )
    scored = score_rationales(lm, dataset, examples, planted, GUARDED, prompts)
    judged = select(scored, calibrate(scored, GUARDED), GUARDED)
    assert not judged.filter(pl.col("sample") == 0)["kept"].any()
    assert judged.filter(pl.col("sample") > 0)["named"].list.len().sum() == 0


def test_a_set_is_scored_in_random_orders_and_averaged(lm, dataset, set_examples, set_prompts):
    texts = [["They buy Garden things.", ""]] * len(set_examples)
    rows = rationale_frame(set_examples["example"].to_list(), texts, "test")
    scored = score_rationales(lm, dataset, set_examples, rows, GUARDED, set_prompts)
    sheets = student_prompts(dataset, set_examples, set_prompts, lm.tokenizer)["prompt"].to_list()
    orders = true_answers(dataset, set_examples, set_prompts, ORDERS)
    for name in ("ppl", "ppl_title", "ppl_values"):
        logs = [
            answer_perplexities(lm, sheets, ["They buy Garden things."] * len(sheets), [row[n] for row in orders], 4)[
                name
            ].log()
            for n in range(ORDERS)
        ]
        expected = np.exp(np.mean([values.to_numpy() for values in logs], axis=0))
        np.testing.assert_allclose(scored.filter(pl.col("sample") == 0)[name].to_numpy(), expected, rtol=1e-4)


def test_titles_in_a_set_are_scored_without_labels_and_categories(lm):
    lines = ["Item title: milk; Category L1: FOOD", "Item title: bread; Category L1: FOOD"]
    scored = answer_perplexities(lm, ["buy:\n"], ["because"], ["\n".join(lines)], 4).row(0, named=True)
    ends = sorted([scored["ppl_title"], scored["ppl_category"]])
    assert ends[0] <= scored["ppl_values"] <= ends[1]


def test_planted_titles_of_any_item_of_a_set_are_rejected_and_clean_rationales_spared(
    lm, dataset, set_examples, set_prompts
):
    clean = RuleWriter(set_prompts, answer_in_view=False).write(dataset, set_examples, 4, 0)
    titles = {
        name: dataset.items["title"][items[number % len(items)]]
        for number, (name, items) in enumerate(set_examples.select("example", "targets").iter_rows())
    }
    planted = clean.with_columns(
        pl.when(pl.col("sample") == 0)
        .then(pl.col("rationale") + " So: " + pl.col("example").replace_strict(titles) + ".")
        .otherwise("rationale")
        .alias("rationale")
    )
    scored = score_rationales(lm, dataset, set_examples, planted, GUARDED, set_prompts)
    judged = select(scored, calibrate(scored, GUARDED), GUARDED)
    assert not judged.filter(pl.col("sample") == 0)["kept"].any()
    assert judged.filter(pl.col("sample") > 0)["named"].list.len().sum() == 0
