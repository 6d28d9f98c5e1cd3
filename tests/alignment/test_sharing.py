"""The trainer with shared prompts against stock TRL: the same rollouts, losses, gradients; and when it goes TRL's
way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from peft import LoraConfig
from tests.alignment import jobs
from tests.alignment.jobs import parameters
from tests.language.prefix_models import family
from trl import GRPOConfig, GRPOTrainer

from taiji.alignment import ParetoGRPOConfig, ParetoGRPOTrainer, sharing
from taiji.alignment.sharing import regrouped

LORA = {"peft_config": LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)}


def history(trainer, key):
    return [line[key] for line in trainer.state.log_history if key in line]


@pytest.mark.parametrize(
    "options",
    [
        {},
        LORA,
        {"beta": 0.1, **LORA},
        {"gradient_checkpointing": True, **LORA},
        {"num_iterations": 2, **LORA},
        {"entropy_coef": 0.05},
        {"mask_truncated_completions": True},
        {"temperature": 0.7, "top_k": 40, "gradient_accumulation_steps": 2},
    ],
    ids=["plain", "lora", "kl", "checkpointing", "old-logprobs", "entropy-bonus", "truncated", "accumulated"],
)
def test_equal_to_stock_trl(job, options):
    common = {"reward_weights": [0.7, 0.3], "max_steps": 4, "optim": "sgd", "learning_rate": 0.5, **options}
    stock = job(GRPOTrainer, GRPOConfig, **common)
    stock.train()
    ours = job(ParetoGRPOTrainer, ParetoGRPOConfig, weighting="fixed", **common)
    ours.train()
    for key in ("reward", "completions/mean_length"):
        assert history(stock, key) == history(ours, key), "the same tokens were drawn"
    for key in ("loss", "grad_norm", "entropy"):
        assert np.allclose(history(stock, key), history(ours, key), rtol=1e-4, atol=1e-6), key
    start = parameters(job(GRPOTrainer, GRPOConfig, **common))
    assert (parameters(stock) - parameters(ours)).norm() <= 1e-4 * (parameters(stock) - start).norm()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gram_estimator": "same-batch", "aggregation": "trl", "num_iterations": 2},
        {"beta": 0.1},
        {"beta": 0.1, "kl_in_indicator": False, "gradient_checkpointing": True},
        {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 4, "weighting": "pcgrad"},
    ],
    ids=["plain", "trl-old-logprobs", "kl", "kl-outside-checkpointing", "accumulated-peer"],
)
def test_gradients_taken_together_are_those_of_a_pass_for_each_reward(job, monkeypatch, options):
    prompts = [f"what was bought before, from the first to the last item: {text}" for text in jobs.PROMPTS]
    common = {
        "prompts": prompts,
        "rewards": [jobs.vowels, jobs.spaces, jobs.length],
        "optim": "sgd",
        "learning_rate": 0.5,
        **LORA,
        **options,
    }
    split, runs, served = sharing.split_logprobs, [], []
    for together in (True, False):

        def chosen(*arguments, together=together, **keywords):
            found = split(*arguments, **keywords) if together else None
            served.append(found is not None)
            return found

        monkeypatch.setattr(sharing, "split_logprobs", chosen)
        trainer = job(ParetoGRPOTrainer, ParetoGRPOConfig, **common)
        start = parameters(trainer)
        trainer.train()
        runs.append(trainer)
    ours, theirs = runs
    half = len(served) // 2
    assert all(served[:half]) and not any(served[half:])
    assert (parameters(ours) - parameters(theirs)).norm() <= 1e-4 * (parameters(theirs) - start).norm()
    for key in ("indicator/vowels", "indicator/length", "weight/vowels"):
        assert np.allclose(history(ours, key), history(theirs, key), rtol=1e-3, atol=1e-6), key


def batch(rows, side, width=16):
    """Token ids and mask of (prompt, completion) rows: prompts padded on one side, completions on the right."""
    ids = torch.zeros(len(rows), width + 8, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, (prompt, completion) in enumerate(rows):
        at = width - len(prompt) if side == "left" else 0
        ids[row, at : at + len(prompt)], mask[row, at : at + len(prompt)] = torch.tensor(prompt), 1
        ids[row, width : width + len(completion)], mask[row, width : width + len(completion)] = (
            torch.tensor(completion),
            1,
        )
    return ids, mask


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side(job, side):
    rng = np.random.default_rng(0)
    prompts = [rng.integers(3, 90, n).tolist() for n in (16, 9)]
    rows = [(prompt, rng.integers(3, 90, n).tolist()) for prompt in prompts for n in (8, 3, 0)]
    ids, mask = batch(rows, side)
    trainer = job(ParetoGRPOTrainer, ParetoGRPOConfig, weighting="fixed", temperature=0.8)
    found = trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, 8, compute_entropy=True)
    for row, (prompt, completion) in enumerate(rows):
        for values in found[:2]:
            assert (values[row, len(completion) :] == 0).all()
        if not completion:
            continue
        logits = trainer.model(input_ids=torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1] / 0.8
        expected = torch.log_softmax(logits, -1).gather(1, torch.tensor(completion)[:, None])[:, 0]
        assert (found[0][row, : len(completion)] - expected).abs().max() < 1e-5
    halves = trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, 8, batch_size=1)
    assert (halves[0] - found[0]).abs().max() < 1e-5 and halves[1] is None


def test_what_goes_trls_way(job, monkeypatch):
    def forbidden(*_, **__):
        raise AssertionError("shared")

    monkeypatch.setattr(sharing, "shared_logprobs", forbidden)
    monkeypatch.setattr(sharing, "generate_shared", forbidden)
    job(ParetoGRPOTrainer, ParetoGRPOConfig, max_steps=1, share_prefixes=False).train()
    window = family("mistral", sliding_window=8, vocab_size=512)
    job(ParetoGRPOTrainer, ParetoGRPOConfig, max_steps=1, model=window).train()
    with pytest.raises(AssertionError, match="shared"):
        job(ParetoGRPOTrainer, ParetoGRPOConfig, max_steps=1).train()
    for option in ({"generation_kwargs": {"no_repeat_ngram_size": 2}}, {"repetition_penalty": 1.1}):
        assert job(ParetoGRPOTrainer, ParetoGRPOConfig, max_steps=1, **option)._law() is None


@pytest.mark.parametrize(
    "name, value",
    [
        ("suppress_tokens", list(range(3, 300))),
        ("bad_words_ids", [[5], [6]]),
        ("no_repeat_ngram_size", 1),
        ("typical_p", 0.5),
        ("epsilon_cutoff", 0.01),
        ("begin_suppress_tokens", [4]),
        ("min_length", 20),
        ("guidance_scale", 1.5),
        ("renormalize_logits", True),
        ("num_beams", 2),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_generation_settings_of_the_checkpoint_are_kept(job, name, value, caplog):
    trainer = job(ParetoGRPOTrainer, ParetoGRPOConfig)
    assert trainer._law() is not None
    setattr(trainer.model.generation_config, name, value)
    assert trainer._law() is None and f"{name}=" in caplog.text


def test_the_checkpoints_forbidden_tokens_are_not_drawn_and_its_least_length_is_served(job):
    seen: list[list[int]] = []

    def keep(completion_ids, **_):
        seen.extend(completion_ids)
        return [float(len(ids)) for ids in completion_ids]

    trainer = job(ParetoGRPOTrainer, ParetoGRPOConfig, rewards=[keep], weighting="fixed", max_steps=1)
    trainer.model.generation_config.suppress_tokens = list(range(3, 300))
    trainer.train()
    assert all(token < 3 or token >= 300 for ids in seen for token in ids)
    trainer.model.generation_config.suppress_tokens = None
    trainer.model.generation_config.min_new_tokens = 5
    trainer.model.generation_config.min_p = 0.05
    law = trainer._law()
    assert law.min_new_tokens == 5 and law.min_p == 0.05


def test_rows_stay_in_their_optimiser_step_where_steps_span_generations(job):
    common = {
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "steps_per_generation": 3,
        "max_steps": 4,
    }
    stock = job(GRPOTrainer, GRPOConfig, **common)
    stock.train()
    ours = job(ParetoGRPOTrainer, ParetoGRPOConfig, weighting="fixed", **common)
    ours.train()
    assert np.allclose(history(stock, "loss"), history(ours, "loss"), atol=1e-6)
    assert torch.allclose(parameters(stock), parameters(ours), atol=1e-3)


def test_float32_weights_trained_in_bfloat16_share(job):
    runs = []
    for share in (True, False):
        trainer = job(
            ParetoGRPOTrainer, ParetoGRPOConfig, weighting="fixed", bf16=True, share_prefixes=share, max_steps=2
        )
        assert trainer.shares(trainer.model) == share
        trainer.train()
        runs.append(trainer)
    for key in ("reward", "completions/mean_length"):
        assert history(runs[0], key) == history(runs[1], key), "the same tokens were drawn"
    assert np.allclose(history(runs[0], "grad_norm"), history(runs[1], "grad_norm"), rtol=0.02)


def test_a_prompts_rollouts_meet_in_one_micro_batch(job):
    trainer = job(
        ParetoGRPOTrainer,
        ParetoGRPOConfig,
        weighting="fixed",
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        max_steps=1,
    )
    trainer.train()
    for part in trainer._buffered_inputs:
        assert len(torch.unique(part["prompt_ids"], dim=0)) == 1
        assert len(part["advantages"]) == 4 and part["num_items_in_batch"].dim() == 0


def test_regrouping_moves_whole_rows():
    ids = torch.tensor([[2], [1], [2], [1]])
    parts = [
        {"prompt_ids": ids[:2], "x": torch.tensor([10.0, 11.0]), "n": torch.tensor(4), "none": None},
        {"prompt_ids": ids[2:], "x": torch.tensor([12.0, 13.0]), "n": torch.tensor(4), "none": None},
    ]
    found = regrouped(parts)
    assert [p["x"].tolist() for p in found] == [[11.0, 13.0], [10.0, 12.0]]
    assert all(p["none"] is None and p["n"] == 4 for p in found)
    assert regrouped(parts[:1]) == parts[:1]
