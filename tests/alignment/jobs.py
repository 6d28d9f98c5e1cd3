"""A small GRPO job on the tiny LM and its rewards, shared by the trainer's tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from taiji.language.tiny import tiny_causal_lm

PROMPTS = ["milk and bread", "coffee", "what next?", "tea with milk", "rice", "beans", "a list", "item"]


def vowels(completions: list[str], **_: Any) -> list[float]:
    return [sum(c in "aeiou" for c in text) / max(len(text), 1) for text in completions]


def spaces(completions: list[str], **_: Any) -> list[float]:
    return [text.count(" ") / max(len(text), 1) for text in completions]


def length(completions: list[str], **_: Any) -> list[float]:
    return [float(len(text)) for text in completions]


def build_job(
    root: Path,
    cls: Any,
    config: Any,
    *,
    rewards: Any = (vowels, spaces),
    model: Any = None,
    folder: str = "out",
    prompts: Any = PROMPTS,
    **options: Any,
) -> Any:
    """A trainer on the tiny LM whose output lies under ``root``; importable, so that a process started anew can build
    it, too."""
    keywords = ("peft_config", "callbacks", "environment_factory", "tools", "processing_class")
    extra = {key: options.pop(key) for key in keywords if key in options}
    lm, tokenizer = tiny_causal_lm(hidden=32, layers=2, heads=4)
    if model is not None:
        lm = model
    defaults: dict[str, Any] = {
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "max_completion_length": 6,
        "learning_rate": 1e-2,
        "max_steps": 3,
        "logging_steps": 1,
        "report_to": "none",
        "save_strategy": "no",
        "use_cpu": True,
        "bf16": False,
        "seed": 3,
        "gradient_checkpointing": False,
        "disable_tqdm": True,
        "temperature": 1.0,
    }
    return cls(
        model=lm,
        reward_funcs=list(rewards),
        args=config(output_dir=str(root / folder), **{**defaults, **options}),
        train_dataset=Dataset.from_dict({"prompt": list(prompts)}),
        **{"processing_class": tokenizer, **extra},
    )


def parameters(trainer: Any) -> torch.Tensor:
    """All trainable parameters as one vector."""
    return torch.cat([p.detach().reshape(-1) for p in trainer.model.parameters() if p.requires_grad])
