"""Completions that do not depend on the model."""

from __future__ import annotations

from typing import Any

import numpy as np


def fixed_rollouts(prompts: list[str], trainer: Any) -> dict[str, Any]:
    """Completions that depend on the prompt and the rollout's number only, whatever process asks."""
    tokenizer, seen, ids = trainer.processing_class, {}, []
    for prompt in prompts:
        number = seen[prompt] = seen.get(prompt, -1) + 1
        rng = np.random.default_rng([number, *prompt.encode()])
        ids.append(rng.integers(3, len(tokenizer), size=rng.integers(3, 7)).tolist())
    return {"prompt_ids": [tokenizer(p)["input_ids"] for p in prompts], "completion_ids": ids, "logprobs": None}
