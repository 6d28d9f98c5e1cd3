"""Answers that are sets, over partitions: what is read of them, their weights, and the same bytes after a kill."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from tests.reasoning.conftest import build, examples_of

from taiji.config import load_config
from taiji.core.artifacts import file_hash
from taiji.core.errors import TaijiError
from taiji.data.item_text import item_text
from taiji.language.causal_lm import LanguageModel
from taiji.language.generate import Written
from taiji.language.score import completion_logprobs
from taiji.language.settings import GenerationSettings
from taiji.language.tiny import tiny_causal_lm
from taiji.pipeline import completions
from taiji.pipeline.partitions import LocalMapper, map_rows
from taiji.reasoning.answers import parse
from taiji.reasoning.prompts import opened, student_prompts

SAID = [
    "a</think><answer>Item title: item1word; Category L1: Garden\nItem title: thing2; Category L1: Kitchen</answer>",
    "b</think><answer>Item title: thing3; Category L1: Sports\nItem title: cut he",
    "no answer at all",
]


@pytest.fixture
def context(monkeypatch):
    dataset, lm = build(), LanguageModel(*tiny_causal_lm(), "tiny")
    overrides = ["reasoning.prompts.answer=set", "reasoning.prompts.token_budget=1500"]
    said: list[str] = []

    def write(lm, prompts, *, n=1, settings=None, seed=0):
        said.extend(prompts)
        return [[Written(SAID[len(prompt) % 3], False)] * n for prompt in prompts]

    monkeypatch.setattr(completions, "stored", lambda context: dataset)
    monkeypatch.setattr(completions, "load_model", lambda context, which: lm)
    monkeypatch.setattr(completions, "with_engine", lambda lm, settings: lm)
    monkeypatch.setattr(completions, "write", write)
    return SimpleNamespace(config=load_config(overrides=overrides), dataset=dataset, lm=lm, said=said)


def rows_of(context) -> pl.DataFrame:
    return examples_of(context.dataset).with_columns(example=pl.format("user {} {}", "user", "as_of"))


def test_intents_and_their_sequence_probabilities(context):
    rows = rows_of(context)
    work = completions._open_answering_sets(context, "sft")
    found = work(rows)
    prompts = student_prompts(context.dataset, rows, context.config.reasoning.prompts, context.lm.tokenizer)["prompt"]
    for prompt, row in zip(prompts, found.iter_rows(named=True)):
        answer = parse(row["completion"], 3, 8)
        intents = answer.intents if answer.title else ()
        assert row["intent_texts"] == [item_text((i.title, *i.levels)) for i in intents]
        assert row["intent_levels"] == [list(i.levels) for i in intents]
        assert len(row["intent_weights"]) == len(intents) and all(0 < weight < 1 for weight in row["intent_weights"])
        if len(intents) == 1:  # the whole answer behind its tag, cut or not, is scored by characters
            (logs,) = completion_logprobs(context.lm, [opened(prompt)], [row["completion"]])
            assert np.exp(logs.min()) <= row["intent_weights"][0] <= np.exp(logs.max())


def test_a_killed_job_goes_on_and_ends_in_the_same_bytes(context, tmp_path):
    rows = rows_of(context)

    def opened_work():
        return completions._open_answering_sets(context, "sft")

    def killed():
        work, done = opened_work(), []

        def until_the_second(part):
            if done:
                raise KeyboardInterrupt
            done.append(part)
            return work(part)

        return until_the_second

    whole = map_rows(LocalMapper(), opened_work, rows, 2, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        map_rows(LocalMapper(), killed, rows, 2, tmp_path / "killed")
    context.said.clear()
    assert map_rows(LocalMapper(), opened_work, rows, 2, tmp_path / "killed").equals(whole)
    assert len(context.said) == len(rows) - 2, "the first partition is not written again"
    assert file_hash(tmp_path / "killed") == file_hash(tmp_path / "whole")


def test_samples_count_and_need_a_temperature(context):
    sampled = context.config.features.model_copy(update={"intent_samples": 3})
    hot = context.config.generation.model_copy(update={"temperature": 0.7})
    context.config = context.config.model_copy(update={"features": sampled, "generation": hot})
    found = completions._open_answering_sets(context, "sft")(rows_of(context))
    assert set(found["intent_weights"].explode().drop_nulls()) == {1.0}
    assert set(found["intent_texts"].list.len()) <= {0, 3, 6}
    context.config = context.config.model_copy(update={"generation": hot.model_copy(update={"temperature": 0.0})})
    with pytest.raises(TaijiError, match="temperature 0"):
        completions.complete_sets(context, rows_of(context), "sft")


LOOP, LINE = "Item title: 3M 1" + "0" * 90, "Item title: a lamp for the desk, wh"


@pytest.mark.parametrize(
    ("cut", "settings", "said"),
    [
        (
            [LOOP] * 3 + [LINE],
            {"temperature": 0.0},
            "Try generation.temperature: 0.7 or generation.repetition_penalty: 1.1",
        ),
        ([LOOP] * 4, {"temperature": 0.7}, "Try generation.repetition_penalty: 1.1"),
        ([LOOP] * 4, {"temperature": 0.7, "repetition_penalty": 1.1}, "Try generation.max_new_tokens above 64"),
        ([LOOP] + [LINE] * 3, {}, "Try generation.max_new_tokens above 64"),
        ([LOOP] * 2, {}, ""),
    ],
)
def test_answers_at_the_limit_are_told_with_what_helps(cut, settings, said, caplog):
    table = pl.DataFrame(
        {"completion": cut + ["whole"] * (8 - len(cut)), "cut": [True] * len(cut) + [False] * (8 - len(cut))}
    )
    completions.warn_of_cut(table, GenerationSettings(max_new_tokens=64, **settings))
    assert said in caplog.text
    assert bool(said) == bool(caplog.text)
    if said:
        loops = sum(text == LOOP for text in cut)
        assert f"{len(cut)} of 8 answers reached generation.max_new_tokens (64)" in caplog.text
        assert f"{loops} of them repeat one piece of text" in caplog.text
