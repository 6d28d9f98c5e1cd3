"""Fine-tuning: learns the completion only, deterministic, leaves one plain model folder."""

from __future__ import annotations

import polars as pl
import pytest
import torch

from taiji.core.artifacts import file_hash
from taiji.core.errors import TaijiError
from taiji.language.causal_lm import load_language_model
from taiji.language.score import completion_logprobs
from taiji.reasoning.rule_writer import RuleWriter
from taiji.reasoning.settings import SFTSettings
from taiji.reasoning.sft import sft_rows, train_sft


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
    """Prompts of other texts but equal completions give the same loss at a model whose attention sees nothing of them."""
    settings = SFTSettings(lora_rank=0, batch_size=6, gradient_accumulation=1)
    losses = train_sft(lm, rows, settings, tmp_path / "m", seed=0)
    end = lm.tokenizer.eos_token
    values = completion_logprobs(lm, rows["prompt"].to_list(), [c + end for c in rows["completion"]])
    expected = -torch.tensor([v for row in values for v in row]).mean()
    assert losses["loss"][0] == pytest.approx(float(expected), rel=1e-3)


def test_errors(lm, rows, tmp_path):
    with pytest.raises(TaijiError, match="No rationale is left"):
        train_sft(lm, rows[:0], SFTSettings(), tmp_path / "m", 0)
    with pytest.raises(TaijiError, match="too long"):
        train_sft(lm, rows, SFTSettings(max_length=64), tmp_path / "m", 0)
    assert list(tmp_path.iterdir()) == []
