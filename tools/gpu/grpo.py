"""Is a GRPO step with shared prompts equal to that of stock TRL, and how much less time and memory does it take?

``agreement`` compares tokens, log-probabilities, gradients and losses on the same weights. ``step`` compares seconds
and memory on shapes of models that people train. A *rollout* includes rewards and advantages; a *step* is a rollout and
an update. An update takes as many rows at once as fit into memory.
"""

from __future__ import annotations

import contextlib
import io
import statistics
from collections.abc import Callable, Iterator
from tempfile import TemporaryDirectory
from typing import Any

import torch
from benchmarks.alignment_speed import Side, agreement
from benchmarks.harness import Result

from tools.gpu import models
from tools.gpu.card import Card, Ceilings

NEW = 96
"""Tokens per rollout."""


def agree(card: Card, result: Result) -> None:
    """Compare rollouts, log-probabilities, gradients and losses with those of stock TRL on the same weights, in fp32
    and bf16."""
    prompt, group, new = (40, 4, 6) if card.quick else (850, 8, 32)
    for dtype in (torch.float32, torch.bfloat16):
        name = str(dtype)[6:]
        with TemporaryDirectory() as folder:
            stock, ours = pair("tiny" if card.quick else "small", card, dtype, prompt, group, new, folder)
            tokens = []
            for side in (stock, ours):
                torch.manual_seed(7)
                if card.device == "cuda":
                    torch.cuda.manual_seed_all(7)
                with quiet():
                    tokens.append(side.inputs()["completion_ids"].cpu())
            width = min(t.shape[1] for t in tokens)
            same = float((tokens[0][:, :width] == tokens[1][:, :width]).float().mean())
            off, error = agreement(stock, ours)
            losses = []
            with quiet():
                inputs = stock.inputs()
            for side in (stock, ours):
                losses.append(float(side.trainer.compute_loss(side.model, inputs).detach()))
                side.optimizer.zero_grad()
            result.rows.append(
                {"part": "agreement", "type": name, "prompt": prompt, "group": group, "same tokens": same, "log-probabilities": off, "gradient error": error, "loss TRL": losses[0], "loss ours": losses[1]}
            )  # fmt: skip
        if dtype == torch.float32:
            result.at_most("GRPO beside stock TRL, fp32: difference of log-probabilities", off, 1e-4)
            result.at_most("GRPO beside stock TRL, fp32: relative error of the gradient", error, 1e-4)
            result.at_most("GRPO beside stock TRL, fp32: difference of the loss", abs(losses[0] - losses[1]), 1e-5)
            result.at_least("GRPO beside stock TRL, fp32: share of sampled tokens that are the same", same, 0.99)
        result.so_far()
        card.free()


def steps(card: Card, result: Result, ceilings: Ceilings, left: Callable[[], float]) -> None:
    """Add the seconds of rollout, update and whole step, and the memory of the update, by shape, prompt length and group
    size."""
    shapes = ("tiny",) if card.quick else ("Qwen3 1.7B", "Llama 8B")
    prompts, groups, new = ((24,), (4,), 5) if card.quick else ((850, 8192), (8, 16), NEW)
    for shape in shapes:
        with TemporaryDirectory() as folder:
            stock, ours = pair(shape, card, torch.bfloat16, prompts[0], max(groups), new, folder)
            for side in (stock, ours):  # this loads and compiles the kernels
                with quiet():
                    inputs = side.inputs()
                fitting(card, side, inputs)
            for prompt in prompts:
                for group in groups:
                    if left() < 0:
                        result.rows.append({"part": "step", "shape": shape, "prompt": prompt, "group": group, "note": "left out: out of time"})  # fmt: skip
                        continue
                    case(card, result, ceilings, shape, stock, ours, prompt, group, new)
            del stock, ours
        card.free()


def case(
    card: Card,
    result: Result,
    ceilings: Ceilings,
    shape: str,
    stock: Side,
    ours: Side,
    prompt: int,
    group: int,
    new: int,
) -> None:
    """Add the rows of one case. Both sides have the same prompt. Rollouts are timed twice for TRL and three times for
    ours, updates three times each."""
    text = models.prompt_of(stock.trainer.processing_class, prompt)
    known: dict[str, Any] = {"part": "step", "shape": shape, "prompt": prompt, "group": group, "new": new}
    floors = {"rollout": models.rollout_bytes(ours.trainer.model, new) / ceilings.bandwidth}
    seconds: dict[str, dict[str, float]] = {}
    update_row: dict[str, Any] = {}
    for name, side, repeats in (("TRL", stock, 2), ("ours", ours, 3)):
        side.ask(text, group)
        rollouts = []
        for _ in range(repeats):
            start = side.now()
            with quiet():
                inputs = side.inputs()
            rollouts.append(side.now() - start)
        rows = fitting(card, side, inputs)
        seconds[name] = {"rollout": statistics.median(rollouts)}
        if not rows:
            continue
        memory = card.peak(lambda s=side, i=inputs, r=rows: update(s, i, r))
        taken = statistics.median(card.seconds(lambda s=side, i=inputs, r=rows: update(s, i, r), 3, 0))
        side.optimizer.step()
        side.optimizer.zero_grad()
        seconds[name] |= {"update": taken, "step": seconds[name]["rollout"] + taken}
        done = models.update_flops(side.trainer.model, prompt, group, new, shared=name == "ours")
        floors["update"] = done / ceilings.bfloat16  # ours comes last, and has the fewest operations
        update_row |= {f"{name} rows at once": rows, f"{name} GB": memory, f"{name} utilisation": done / taken / ceilings.bfloat16}  # fmt: skip
    for part in ("rollout", "update", "step"):
        row = {**known, "of": part, **{f"{name} s": found[part] for name, found in seconds.items() if part in found}}
        if "TRL s" in row and "ours s" in row:
            row["times as fast"] = row["TRL s"] / row["ours s"]
        if part in floors and "ours s" in row:
            row |= {"floor s": floors[part], "ours over floor": row["ours s"] / floors[part]}
        result.rows.append(row | (update_row if part == "update" else {}))
    result.so_far()


def pair(
    shape: str, card: Card, dtype: torch.dtype, prompt: int, group: int, new: int, folder: str
) -> tuple[Side, Side]:
    """Return TRL's trainer and ours, with the same weights."""
    sides = []
    for ours in (False, True):
        model, tokenizer = models.made(shape, card.device, dtype)
        text = models.prompt_of(tokenizer, prompt)
        torch.manual_seed(1)
        sides.append(Side(model, tokenizer, ours, text, group, new, f"{folder}/{ours}"))
    return sides[0], sides[1]


def fitting(card: Card, side: Side, inputs: dict[str, Any]) -> int:
    """Return how many rows of the group an update of this side can take at once, or 0 if not even one fits into
    memory."""
    rows = side.group
    while rows:
        try:
            update(side, inputs, rows, first=True)
            side.optimizer.zero_grad()
            return rows
        except torch.OutOfMemoryError:
            side.optimizer.zero_grad()
            card.free()
            rows //= 2
    return 0


def update(side: Side, inputs: dict[str, Any], rows: int, first: bool = False) -> None:
    """Run forward and backward passes over a group, ``rows`` rows at a time; with ``first``, only over the first
    rows."""
    for at in range(0, rows if first else side.group, rows):
        side.update({k: v[at : at + rows] if getattr(v, "ndim", 0) else v for k, v in inputs.items()})


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress what the trainers print."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
