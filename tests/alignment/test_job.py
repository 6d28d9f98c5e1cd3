"""``align``: a merged folder, one line a step, the same bytes after a kill."""

from __future__ import annotations

import json
import multiprocessing
import os

import numpy as np
import polars as pl
import pytest
import torch
from tests.language.families import TEMPLATES, TOKENIZERS
from tests.processes import sharded

from taiji.alignment.job import _trainer, align
from taiji.alignment.settings import AlignmentSettings
from taiji.core.artifacts import file_hash
from taiji.core.errors import TaijiError
from taiji.language.causal_lm import LanguageModel
from taiji.language.chat import render
from taiji.language.chat_template import bind_template
from taiji.language.tiny import tiny_causal_lm
from taiji.language.token_ids import continued, ids_of
from taiji.reasoning.prompts import opened
from taiji.reasoning.sft import token_row

EXAMPLES = pl.DataFrame(
    {"example": [f"e{i}" for i in range(6)], "prompt": [f"<|im_start|>user\nitem {i}<|im_end|>\n" for i in range(6)]}
)
SETTINGS = AlignmentSettings(
    prompts_per_step=2,
    generations=2,
    micro_batch=2,
    max_completion_tokens=5,
    steps=5,
    checkpoint_every=2,
    learning_rate=1e-2,
    lora_rank=4,
    weight_warmup=0,
    beta=0.05,
)
REWARDS = {
    "vowels": lambda examples, texts: np.array([sum(c in "aeiou" for c in t) / max(len(t), 1) for t in texts]),
    "length": lambda examples, texts: np.array([float(len(t)) for t in texts]),
}

COMPLETION = "The household buys milk.</think><answer>Item title: oat milk</answer>"


def start():
    model, tokenizer = tiny_causal_lm(hidden=32)
    return LanguageModel(model, tokenizer, "tiny")


def results(folder):
    return {
        path.relative_to(folder).as_posix(): file_hash(path) for path in sorted(folder.rglob("*")) if path.is_file()
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    align(start(), EXAMPLES, REWARDS, SETTINGS, folder, 7, scratch=folder.parent / "scratch")
    return folder


def test_results(undisturbed):
    from transformers import AutoModelForCausalLM

    lines = [json.loads(line) for line in (undisturbed / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    for line in lines:
        assert set(line["rewards"]) == set(line["weights"]) == set(line["indicator"]) == {"vowels", "length"}
        assert sum(line["weights"].values()) == pytest.approx(1, abs=1e-6)
        assert {"delta_log_w", "loss", "rewards_std"} <= line.keys()
        assert 0 <= line["cut"] <= 1
    model = AutoModelForCausalLM.from_pretrained(undisturbed / "model")
    before = start()
    assert any(not torch.equal(a, b) for a, b in zip(model.state_dict().values(), before.model.state_dict().values()))
    assert (
        not list(undisturbed.rglob("adapter*"))
        and not list(undisturbed.rglob("*.pt"))
        and not list(undisturbed.rglob("*.bin"))
    )
    assert not (undisturbed.parent / "scratch" / "checkpoints").exists()


def test_rollouts_of_every_step_are_kept_with_their_rewards(undisturbed):
    frame = pl.read_parquet(undisturbed / "rollouts.parquet")
    assert frame["step"].to_list() == [step for step in range(1, 6) for _ in range(4)]
    rows = frame.to_dicts()
    assert [row["example"] for row in rows[0::2]] == [row["example"] for row in rows[1::2]], (
        "groups of one prompt stand together"
    )
    for name, reward in REWARDS.items():
        wanted = reward(frame["example"].to_list(), frame["completion"].to_list())
        assert [row["rewards"][name] for row in rows] == pytest.approx(list(wanted))
    means = [json.loads(line)["rewards"] for line in (undisturbed / "metrics.jsonl").read_text().splitlines()]
    found = (
        frame.unnest("rewards")
        .group_by("step", maintain_order=True)
        .agg(pl.col(*REWARDS).mean())
        .drop("step")
        .to_dicts()
    )
    assert [row[name] for row in found for name in REWARDS] == pytest.approx(
        [row[name] for row in means for name in REWARDS], rel=1e-5
    )


def killed_at(step, folder, scratch):
    calls = 0

    def reward(examples, texts):
        nonlocal calls
        calls += 1
        if calls == step:
            os._exit(9)  # as hard as SIGKILL: no clean-up runs
        return REWARDS["vowels"](examples, texts)

    align(start(), EXAMPLES, {"vowels": reward, "length": REWARDS["length"]}, SETTINGS, folder, 7, scratch=scratch)


@pytest.mark.parametrize("step", [1, 4])
def test_killed_and_called_again_gives_the_same_bytes(undisturbed, tmp_path, step):
    worker = multiprocessing.get_context("spawn").Process(
        target=killed_at, args=(step, tmp_path / "out", tmp_path / "scratch")
    )
    worker.start()
    worker.join()
    assert worker.exitcode == 9
    half = tmp_path / "scratch" / "checkpoints" / "checkpoint-4"
    half.mkdir(parents=True)  # a checkpoint whose writing was cut off
    align(start(), EXAMPLES, REWARDS, SETTINGS, tmp_path / "out", 7, scratch=tmp_path / "scratch")
    assert results(tmp_path / "out") == results(undisturbed)


def test_full_parameters_with_a_reference_model(tmp_path):
    settings = SETTINGS.model_copy(update={"lora_rank": 0, "weighting": "popo-light", "steps": 2})
    lm = start()
    before = {name: value.clone() for name, value in lm.model.state_dict().items()}
    align(lm, EXAMPLES, REWARDS, settings, tmp_path / "out", 0)
    assert all(torch.equal(value, before[name]) for name, value in lm.model.state_dict().items()), (
        "the model given is left as it was"
    )
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["kl"] == pytest.approx(0, abs=1e-6) and lines[1]["kl"] > 0


def test_errors(tmp_path):
    for examples, rewards, settings, message in (
        (EXAMPLES[:1], REWARDS, SETTINGS, "fewer prompts"),
        (EXAMPLES, {}, SETTINGS, "no reward"),
        (EXAMPLES, REWARDS, SETTINGS.model_copy(update={"micro_batch": 3}), "do not divide"),
        (
            EXAMPLES,
            REWARDS,
            SETTINGS.model_copy(update={"preference": (1.0, 2.0, 3.0)}),
            "differs from the number of rewards",
        ),
    ):
        with pytest.raises(TaijiError, match=message):
            align(start(), examples, rewards, settings, tmp_path, 0)


def test_adapters_under_fsdp_are_an_error_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr("taiji.alignment.job._trainer", sharded(_trainer))
    with pytest.raises(TaijiError, match="under FSDP"):
        align(start(), EXAMPLES, REWARDS, SETTINGS.model_copy(update={"lora_rank": 2}), tmp_path / "out", 0)


@pytest.mark.parametrize("habit", TOKENIZERS)
def test_rollouts_begin_with_the_ids_of_answers_and_of_fine_tuning(habit, tmp_path, monkeypatch):
    tokenizer = TOKENIZERS[habit]()
    tokenizer.chat_template = TEMPLATES["BOS and date"]
    bind_template(tokenizer, {}, None)
    model, _ = tiny_causal_lm(TOKENIZERS["adds nothing"](), hidden=32)
    lm = LanguageModel(model, tokenizer, "tiny")
    prompts = [render(lm, [{"role": "user", "content": text}]) for text in ("milk and bread", "tea")]
    begun = [opened(prompt) for prompt in prompts]
    read: list[list[int]] = []

    def written(model, prompts, *args, **keywords):
        read.extend(prompts)
        return [[*continued(lm.tokenizer, begun[0], COMPLETION).ids[len(prompts[0]) :], lm.tokenizer.eos_token_id]] * 2

    monkeypatch.setattr("taiji.alignment.sharing.generate_shared", written)
    examples = pl.DataFrame({"example": ["a", "b"], "prompt": begun})
    trainer = _trainer(lm, examples, REWARDS, SETTINGS.model_copy(update={"steps": 1}), tmp_path, 0, 1)
    prompt_ids, _, _, texts, *_ = trainer._generate(begun)
    assert read == prompt_ids == [ids_of(lm.tokenizer, text) for text in begun]
    for prompt, ids in zip(prompts, prompt_ids):
        assert token_row(lm.tokenizer, prompt, "<think>" + COMPLETION).ids[: len(ids)] == ids
    assert [text.strip() for text in texts] == [COMPLETION] * 2  # the tags, and no special tokens
