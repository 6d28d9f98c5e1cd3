"""A GRPO step with shared prompts beside stock TRL's: the same mathematics, then seconds and memory on shapes that
people train.

A rollout's seconds hold rewards and advantages; a step is rollout and update. TRL's update takes as many rows at once
as fit.
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
"""Tokens of a rollout."""


def agree(card: Card, result: Result) -> None:
    """Compare rollouts, log-probabilities and gradients with stock TRL's on the same weights, in fp32 and bf16."""
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
    """Add the seconds and memory of rollout, update and whole step of each shape, prompt length and group size."""
    shapes = ("tiny",) if card.quick else ("Qwen3 1.7B", "Llama 8B")
    prompts, groups, new = ((24,), (4,), 5) if card.quick else ((850, 8192), (8, 16), NEW)
    for shape in shapes:
        with TemporaryDirectory() as folder:
            stock, ours = pair(shape, card, torch.bfloat16, prompts[0], max(groups), new, folder)
            for side in (stock, ours):  # kernels are loaded and compiled
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
    """Add one case: rollouts of either side (twice TRL's, three times ours), then updates (three each), on the same
    prompt."""
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
        floors["update"] = done / ceilings.bfloat16  # ours comes last: the fewest operations
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
    """Return TRL's trainer and ours on the same weights."""
    sides = []
    for ours in (False, True):
        model, tokenizer = models.made(shape, card.device, dtype)
        text = models.prompt_of(tokenizer, prompt)
        torch.manual_seed(1)
        sides.append(Side(model, tokenizer, ours, text, group, new, f"{folder}/{ours}"))
    return sides[0], sides[1]


def fitting(card: Card, side: Side, inputs: dict[str, Any]) -> int:
    """Return how many rows of the group an update of this side can take at once; 0 where not even one fits."""
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
    """Run forward and backward over a group, so many rows at once."""
    for at in range(0, rows if first else side.group, rows):
        side.update({k: v[at : at + rows] if getattr(v, "ndim", 0) else v for k, v in inputs.items()})


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what trainers print to themselves."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
