"""How the cost of an update grows: seconds and peak memory against prompt length, group size and number of users.

SmolLM2-135M with LoRA in its best type for this machine, completions of 96 tokens. From each base case one factor is raised; the
growth is the slope of log cost on log factor (1 is proportional). Cases are timed in turn in one process.

    python -m benchmarks.cost_growth [--quick] [--json benchmarks/results/cost_growth.json]
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.harness import Result, in_turn, run
from benchmarks.measuring import peak_memory, small_model


def updater(model: Any, users: int, prompt: int, group: int, new: int) -> Callable[[], None]:
    """A forward and backward over `users` prompts with `group` completions each."""
    import torch

    from taiji.language.prefix_forward import shared_logprobs

    rng = np.random.default_rng(0)
    rows: list[list[int]] = []
    for _ in range(users):
        context = rng.integers(5, 200, prompt).tolist()
        rows += [context + rng.integers(5, 200, new).tolist() for _ in range(group)]

    def update() -> None:
        torch.cat(shared_logprobs(model, rows, [prompt] * len(rows)).logprobs).sum().backward()
        model.zero_grad()

    return update


def slope(factors: Sequence[float], costs: Sequence[float]) -> float:
    """Of log cost on log factor."""
    return float(np.polyfit(np.log(factors), np.log(costs), 1)[0])


def measure(quick: bool) -> Result:
    """See the module's docstring."""
    from peft import LoraConfig, get_peft_model

    from taiji.language.causal_lm import load_language_model
    from taiji.language.prefix_lora import fuse_adapters

    lm = small_model("float32") if quick else load_language_model(device="cpu")
    model = get_peft_model(
        lm.model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"), autocast_adapter_dtype=False
    ).train()
    fuse_adapters(model)
    new, repeats = (16, 2) if quick else (96, 5)
    base = {"users": 1, "prompt": 64 if quick else 512, "group": 4}
    ranges = (
        {"prompt": (64, 128, 256), "group": (4, 8, 16), "users": (1, 2, 4)}
        if quick
        else {"prompt": (128, 512, 850, 2048), "group": (4, 8, 16, 32), "users": (1, 2, 4, 8)}
    )
    result = Result()
    for factor, values in ranges.items():
        actions = [updater(model, **{**base, factor: value}, new=new) for value in values]
        seconds = [statistics.median(s) for s in in_turn(*actions, repeats=repeats)]
        memory = [peak_memory(action)[1] for action in actions]
        for value, second, megabytes in zip(values, seconds, memory):
            sizes = {**base, factor: value}
            tokens = sizes["users"] * (sizes["prompt"] + sizes["group"] * new)
            result.rows.append(
                {
                    "factor": factor,
                    **sizes,
                    "packed tokens": tokens,
                    "s": second,
                    "MB": megabytes,
                    "ms/token": 1e3 * second / tokens,
                }
            )
        growth, more = slope(values, seconds), slope(values, memory)
        result.rows.append({"factor": f"{factor}: time grows as its power {growth:.2f}, memory {more:.2f}"})
        if not quick:
            result.at_most(
                f"seconds against {factor}: exponent", growth, {"prompt": 1.2, "group": 1.05, "users": 1.1}[factor]
            )
        result.at_most(f"memory against {factor}: exponent", more, {"prompt": 1.2, "group": 1.05, "users": 1.1}[factor])
    return result


if __name__ == "__main__":
    run(measure)
