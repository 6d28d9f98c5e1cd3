"""Does POPO complete its steps on the GPU? It needs several backward passes through one graph, where stock TRL needs
one."""

from __future__ import annotations

import math
from tempfile import TemporaryDirectory
from typing import Any

import torch
from benchmarks.alignment_speed import spread
from benchmarks.harness import Result

from tools.gpu import models
from tools.gpu.card import Card
from tools.gpu.grpo import quiet

ESTIMATORS = ("same-batch", "cross-batch", "directional")
STEPS = 3


def letters(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """Return a second cheap reward, which is unrelated to :func:`~benchmarks.alignment_speed.spread`."""
    return [1.0 - sum(t % 5 for t in ids) / (4 * max(len(ids), 1)) for ids in completion_ids]


def measure(card: Card, result: Result) -> None:
    """Train by POPO with each estimator of the indicators, and check that all steps have finite losses and weights."""
    from datasets import Dataset
    from peft import LoraConfig

    from taiji.alignment import ParetoGRPOConfig, ParetoGRPOTrainer

    shape, prompt, group, new = ("tiny", 24, 4, 5) if card.quick else ("small", 400, 8, 32)
    for estimator in ESTIMATORS:
        model, tokenizer = models.made(shape, card.device, torch.bfloat16)
        prompts = [models.prompt_of(tokenizer, prompt, seed) for seed in range(4)]
        with TemporaryDirectory() as folder, quiet():
            arguments = ParetoGRPOConfig(
                output_dir=folder, weighting="popo", gram_estimator=estimator, max_steps=STEPS, per_device_train_batch_size=2 * group, num_generations=group,
                max_completion_length=new, use_cpu=card.device == "cpu", bf16=True, beta=0.02, report_to="none", save_strategy="no", disable_tqdm=True, logging_steps=1, seed=0,
            )  # fmt: skip
            trainer = ParetoGRPOTrainer(
                model=model, reward_funcs=[spread, letters], args=arguments, train_dataset=Dataset.from_dict({"prompt": prompts}), processing_class=tokenizer,
                peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
            )  # fmt: skip
            trainer.train()
        logged = [entry for entry in trainer.state.log_history if "loss" in entry]
        losses = [float(entry["loss"]) for entry in logged]
        weights = {key.split("/", 1)[1]: value for key, value in logged[-1].items() if key.startswith("weight/")}
        result.rows.append({"part": "popo", "estimator": estimator, "steps": trainer.state.global_step, "losses": str(losses), **weights})  # fmt: skip
        taken = sum(map(math.isfinite, losses)) if all(map(math.isfinite, weights.values())) else 0
        result.at_least(f"POPO, {estimator}: steps with finite losses and weights", taken, STEPS)
        result.so_far()
        del model, trainer
        card.free()
