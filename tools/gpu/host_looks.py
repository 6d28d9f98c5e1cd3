"""How often does the host wait for the GPU within a step? Waits are counted by torch's warnings about synchronising
calls."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from benchmarks import ranking_stream
from benchmarks.harness import Result

from taiji.language.logits_processing import Sampling
from taiji.language.prefix_forward import shared_logprobs
from taiji.language.prefix_generate import generate_shared
from taiji.models.ranking.training_loop import training_steps
from tools.gpu import components, models
from tools.gpu.card import Card


def looks(action: Callable[[], Any]) -> Counter[str]:
    """Return how often an action waits for the GPU, by line of source. Without a GPU nothing is counted."""
    if not torch.cuda.is_available():
        action()
        return Counter()
    found: Counter[str] = Counter()

    def note(message: Any, category: type[Warning], filename: str, lineno: int, *_: Any) -> None:
        if "synchronizing CUDA operation" in str(message):
            found[f"{'/'.join(filename.split('/')[-2:])}:{lineno}"] += 1

    torch.cuda.synchronize()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note  # type: ignore[assignment]
        torch.cuda.set_sync_debug_mode("warn")
        try:
            action()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return found


def measure(card: Card, result: Result) -> None:
    """Add the waits of an update, of 32 further tokens, and of 10 further steps of a ranker. Check that updates and
    ranker steps have none, and that a token has at most 0.1 on average."""
    model, _ = models.made("tiny", card.device, torch.bfloat16)
    model.lm_head.weight = torch.nn.Parameter(
        model.lm_head.weight.detach().clone(), requires_grad=False
    )  # as with LoRA
    random = np.random.default_rng(0)
    prompt = random.integers(5, 200, 64).tolist()
    rows = [prompt + random.integers(5, 200, 16).tolist() for _ in range(4)]

    def update() -> None:
        torch.cat(shared_logprobs(model, rows, [64] * 4).logprobs).sum().backward()

    def rollout(new: int) -> Callable[[], Any]:
        return lambda: generate_shared(model, [prompt], 4, Sampling(new, 1.0), draw="uniform")

    update(), rollout(8)()
    passes = looks(update)
    few, many = looks(rollout(8)), looks(rollout(40))
    data, batch = ranking_stream.shop(2_000), 256
    frame = components.shown(batch * 12)
    ranker = components.fresh_ranker("target_attention", data, frame, card.device, batch)
    arrays, train = ranker.inputs.arrays(frame), training_steps(ranker, seed=0)
    train(arrays, np.arange(batch))
    short, long = looks(lambda: train(arrays, np.arange(2 * batch))), looks(lambda: train(arrays, np.arange(12 * batch)))  # fmt: skip
    for of, found in (("update, whole", passes), ("32 more tokens", many - few), ("10 more steps of a ranker", long - short)):  # fmt: skip
        result.rows.append({"part": "host looks", "of": of, "times": sum(found.values()), "where": ", ".join(f"{k} x{v}" for k, v in found.most_common(6))})  # fmt: skip
    result.at_most("waits of the host for the GPU per update", sum(passes.values()), 0)
    result.at_most("waits of the host for the GPU per token", sum((many - few).values()) / 32, 0.1)
    result.at_most("waits of the host for the GPU per step of a ranker", sum((long - short).values()) / 10, 0.0)
    result.so_far()
