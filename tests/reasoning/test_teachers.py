"""Teachers in process: the frames they return, the seeds, and what is kept of a model's text."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taiji.reasoning.settings import PromptSettings, TeacherSettings
from taiji.reasoning.teachers import LocalTeacher, tidy


@pytest.mark.parametrize("in_view", [True, False])
def test_a_local_teacher(lm, dataset, examples, prompts, in_view):
    teacher = LocalTeacher(lm, TeacherSettings(max_new_tokens=10, answer_in_view=in_view), prompts)
    frame = teacher.write(dataset, examples, 2, seed=0)
    assert frame.columns == ["example", "sample", "rationale", "teacher"]
    assert frame["example"].to_list() == [e for e in examples["example"] for _ in range(2)]
    assert frame["sample"].to_list() == [0, 1] * len(examples)
    assert frame["teacher"].unique().to_list() == ["local:tiny"]
    assert frame["rationale"].str.starts_with("This shopper often buys").all()
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


@given(st.text(max_size=120))
@settings(max_examples=200, deadline=None)
def test_tidy_is_idempotent_and_one_line(text):
    once = tidy(text)
    assert tidy(once) == once
    assert "\n" not in once


def test_prompt_settings_reach_the_teacher(lm, dataset, examples):
    teacher = LocalTeacher(lm, TeacherSettings(max_new_tokens=8), PromptSettings(token_budget=400, history_limit=1))
    assert len(teacher.write(dataset, examples, 1, 0)) == len(examples)
