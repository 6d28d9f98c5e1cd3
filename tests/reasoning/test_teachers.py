"""Teachers in process: the frames they return, the seeds, and what is kept of a model's text."""

from __future__ import annotations

import copy

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny import end_often

from taiji.core.errors import TaijiError
from taiji.language.causal_lm import LanguageModel
from taiji.language.generate import Written
from taiji.reasoning.settings import PromptSettings, TeacherSettings
from taiji.reasoning.teachers import LocalTeacher, check_endings, rationale_frame, tidy, with_prefill


def ending(lm: LanguageModel) -> LanguageModel:
    """The model with more tokens that end a text: random weights say none by themselves."""
    model = copy.deepcopy(lm.model)
    end_often(model)
    return LanguageModel(model, lm.tokenizer, lm.name)


@pytest.mark.parametrize("in_view", [True, False])
def test_a_local_teacher(lm, dataset, examples, prompts, in_view):
    teacher = LocalTeacher(ending(lm), TeacherSettings(max_new_tokens=10, answer_in_view=in_view), prompts)
    frame = teacher.write(dataset, examples, 2, seed=0)
    assert frame.columns == ["example", "sample", "rationale", "teacher", "ended"]
    assert frame["example"].to_list() == [e for e in examples["example"] for _ in range(2)]
    assert frame["sample"].to_list() == [0, 1] * len(examples)
    assert frame["teacher"].unique().to_list() == ["local:tiny"]
    assert {"whole", "cut"} <= set(frame["ended"]) <= {"whole", "cut", "empty"}
    assert frame.filter(ended="whole")["rationale"].str.starts_with("This shopper often buys").all()
    assert (frame.filter(pl.col("ended") != "whole")["rationale"] == "").all()
    assert teacher.write(dataset, examples, 2, seed=0).equals(frame)
    assert not teacher.write(dataset, examples, 2, seed=1).equals(frame)
    chunks = pl.concat([teacher.write(dataset, examples[s : s + 2], 2, seed=0) for s in range(0, len(examples), 2)])
    assert chunks.equals(frame)


@pytest.mark.parametrize(
    ("text", "rationale"),
    [
        ("They like milk. They like", "They like milk."),
        ("They like", "They like"),
        ("A b.\nA b. C d.", "A b."),
        ("So it goes.</think><answer>Item title: x</answer>", "So it goes."),
        ("So it goes. <Answer> x", "So it goes."),
        ("<think>Yes. No.", "Yes. No."),
        ("", ""),
        ("</think>", ""),
        ('He said "yes."', 'He said "yes."'),
        ("They buy : - Milk (2) - Bread .", "They buy: Milk (2), Bread."),
        ("They buy:\n- Milk\n- Bread", "They buy: Milk, Bread"),
    ],
)
def test_tidy(text, rationale):
    assert tidy(text) == rationale


@pytest.mark.parametrize("text", ["", ":", " ...", "1 2 3", "—\n"], ids=["nothing", "colon", "dots", "digits", "dash"])
def test_a_prefill_that_the_model_does_not_continue_is_no_rationale(text):
    assert with_prefill("This shopper", text) == "" == with_prefill("", text)
    assert (
        with_prefill("This shopper", "buys tea.") == "This shopper buys tea." and with_prefill("", "買う。") == "買う。"
    )


@given(st.text(max_size=120))
@settings(max_examples=200, deadline=None)
def test_tidy_is_idempotent_and_one_line(text):
    once = tidy(text)
    assert tidy(once) == once
    assert "\n" not in once


def test_prompt_settings_reach_the_teacher(lm, dataset, examples):
    teacher = LocalTeacher(lm, TeacherSettings(max_new_tokens=8), PromptSettings(token_budget=400, history_limit=1))
    assert len(teacher.write(dataset, examples, 1, 0)) == len(examples)


@pytest.mark.parametrize(
    ("text", "cut", "setting", "rationale", "ended"),
    [
        ("They like milk. They li", True, "shorten", "They like milk.", "shortened"),
        ("They like milk. They li", True, "drop", "", "cut"),
        ("They li", True, "shorten", "", "cut"),
        ("They like", False, "shorten", "They like", "whole"),
        ("", False, "shorten", "", "empty"),
    ],
)
def test_a_rationale_that_the_limit_cut_ends_with_a_sentence_or_is_none(
    lm, prompts, text, cut, setting, rationale, ended
):
    teacher = LocalTeacher(lm, TeacherSettings(cut=setting), prompts)
    assert teacher._rationale("", Written(text, cut)) == (rationale, ended)


def test_what_is_left_out_is_counted_and_said(caplog):
    frame = rationale_frame(
        ["a", "b"],
        [["x.", "", ""], ["y.", "", "z."]],
        "t",
        [["whole", "cut", "cut"], ["shortened", "refused", "whole"]],
    )
    assert check_endings(frame) == {"cut": 2, "refused": 1, "shortened": 1, "whole": 2}
    assert "Of 6 rationales, these are not used: 2 cut, 1 refused" in caplog.text
    caplog.clear()
    assert check_endings(rationale_frame(["a"], [["x."]], "t")) == {"whole": 1} and not caplog.text


def test_a_teacher_without_a_whole_text_is_an_error():
    with pytest.raises(TaijiError, match="completed no rationale") as error:
        check_endings(rationale_frame(["a"], [["", ""]], "t", [["cut", "cut"]]))
    assert "2 cut" in str(error.value) and "max_new_tokens" in str(error.value)
