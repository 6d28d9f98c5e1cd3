"""Fine-tuning: learns the completion only, deterministic, leaves one plain model folder."""

from __future__ import annotations

import polars as pl
import pytest
import torch
from tests.language.families import TEMPLATES, TOKENIZERS
from tests.processes import sharded

from taiji.core.artifacts import file_hash
from taiji.core.errors import TaijiError
from taiji.language.causal_lm import LanguageModel, load_language_model
from taiji.language.chat import render
from taiji.language.chat_template import bind_template
from taiji.language.score import completion_logprobs
from taiji.language.tiny import tiny_causal_lm
from taiji.language.token_ids import ids_of
from taiji.reasoning.answers import format_completion, parse
from taiji.reasoning.prompts import item_line, opened
from taiji.reasoning.rule_writer import RuleWriter
from taiji.reasoning.settings import SFTSettings
from taiji.reasoning.sft import _trainer, sft_rows, token_row, train_sft
from taiji.reasoning.sft_trainer import unpadded


@pytest.fixture(scope="module")
def rows(lm, dataset, examples, prompts) -> pl.DataFrame:
    return sft_rows(dataset, examples, RuleWriter(prompts).write(dataset, examples, 1, 0), prompts, lm.tokenizer)


def test_rows(rows, dataset, examples):
    assert rows.columns == ["prompt", "completion"]
    assert rows["completion"].str.starts_with("<think>").all()
    assert rows["completion"].str.ends_with("</answer>").all()
    for completion, target in zip(rows["completion"], examples["target"]):
        assert dataset.items["title"][target] in completion


@pytest.mark.parametrize("rank", [0, 4])
def test_it_learns_and_is_deterministic(lm, rows, tmp_path, rank):
    settings = SFTSettings(lora_rank=rank, learning_rate=5e-3, epochs=4, batch_size=2, gradient_accumulation=1)
    before = lm.version
    losses = train_sft(lm, rows, settings, tmp_path / "one", seed=0)
    assert losses["loss"][-1] < losses["loss"][0]
    assert len(losses) == 12
    train_sft(lm, rows, settings, tmp_path / "two", seed=0)
    assert file_hash(tmp_path / "one") == file_hash(tmp_path / "two")
    assert version_now(lm) == before
    tuned = load_language_model(tmp_path / "one", dtype="float32")
    prompts, completions = rows["prompt"].to_list(), rows["completion"].to_list()
    gain = [
        float(b.mean() - a.mean())
        for a, b in zip(completion_logprobs(lm, prompts, completions), completion_logprobs(tuned, prompts, completions))
    ]
    assert min(gain) > 0
    names = {p.name for p in (tmp_path / "one").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert not [n for n in names if "adapter" in n or "checkpoint" in n or n.endswith((".bin", ".pt"))]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one", "two"]


def version_now(lm) -> str:
    """The version as of now, not the cached one."""
    return type(lm)(lm.model, lm.tokenizer, lm.name).version


def test_only_the_completion_is_learnt(lm, rows, tmp_path):
    """Prompts of other texts but equal completions give the same loss at a model whose attention sees nothing of
    them."""
    settings = SFTSettings(lora_rank=0, batch_size=6, gradient_accumulation=1)
    losses = train_sft(lm, rows, settings, tmp_path / "m", seed=0)
    end = lm.tokenizer.eos_token
    values = completion_logprobs(lm, rows["prompt"].to_list(), [c + end for c in rows["completion"]])
    expected = -torch.tensor([v for row in values for v in row]).mean()
    assert losses["loss"][0] == pytest.approx(float(expected), rel=1e-3)


def test_errors(lm, rows, tmp_path):
    with pytest.raises(TaijiError, match="no rationale to fine-tune on"):
        train_sft(lm, rows[:0], SFTSettings(), tmp_path / "m", 0)
    with pytest.raises(TaijiError, match="too long"):
        train_sft(lm, rows, SFTSettings(max_length=64), tmp_path / "m", 0)
    assert list(tmp_path.iterdir()) == []


def test_adapters_under_fsdp_are_an_error_before_training(lm, rows, tmp_path, monkeypatch):
    monkeypatch.setattr("taiji.reasoning.sft._trainer", sharded(_trainer))
    with pytest.raises(TaijiError, match="under FSDP"):
        train_sft(lm, rows, SFTSettings(lora_rank=2), tmp_path / "m", 0)


@pytest.mark.parametrize("habit", TOKENIZERS)
def test_the_trainer_learns_the_ids_that_generation_begins_with(habit, tmp_path):
    """What TRL would make of texts: a second BOS where a tokenizer adds one, a second EOS where it adds that."""
    tokenizer = TOKENIZERS[habit]()
    tokenizer.chat_template = TEMPLATES["BOS and date"]
    bind_template(tokenizer, {}, None)
    student = LanguageModel(tiny_causal_lm(TOKENIZERS["adds nothing"]())[0], tokenizer, "tiny")
    prompts = [render(student, [{"role": "user", "content": text}]) for text in ("milk", "oat milk and tea")]
    taught = [token_row(tokenizer, p, format_completion('"Milk" first', "Item title: oat")) for p in prompts]
    trainer = _trainer(student, taught, SFTSettings(batch_size=2), str(tmp_path), 0)
    batch = next(iter(trainer.get_train_dataloader()))
    rows, starts = unpadded(batch["input_ids"], batch["attention_mask"], batch["labels"])
    for prompt, row in zip(prompts, taught):
        asked = ids_of(tokenizer, opened(prompt))
        found = rows.index(row.ids)
        assert rows[found][: len(asked)] == asked and rows[found][-1] == tokenizer.eos_token_id
        assert starts[found] == row.first <= len(asked)
        assert rows[found].count(tokenizer.bos_token_id) <= 1


def test_a_model_without_an_end_of_text_token_is_an_error(lm):
    tokenizer = TOKENIZERS["no EOS"]()
    with pytest.raises(TaijiError, match="no end-of-text token"):
        token_row(tokenizer, "a prompt", format_completion("why", "Item title: oat"))


def test_a_set_is_taught_in_another_order_with_each_rationale(lm, dataset, set_examples, set_prompts):
    kept = RuleWriter(set_prompts).write(dataset, set_examples, 3, 0)
    rows = sft_rows(dataset, set_examples, kept, set_prompts, lm.tokenizer)
    taught = [parse(text, most=set_prompts.most) for text in rows["completion"]]
    assert all(answer.well_formed for answer in taught)
    lines = [[item_line(dataset, item) for item in items] for items in set_examples["targets"]]
    for number, answer in enumerate(taught):
        said = [intent.text for intent in answer.intents]
        assert len(said) == min(set_prompts.intents, len(lines[number // 3])) and set(said) <= set(lines[number // 3])
    assert taught[0].text != taught[1].text
    alone = sft_rows(dataset, set_examples[1:], kept[3:], set_prompts, lm.tokenizer)
    assert alone.equals(rows[3:])
