"""Is attention along the prefix tree (FlexAttention) as exact as the masked reference, and how fast is it?

Forward and backward passes are compared in fp32 and bf16, also with odd lengths.
"""

from __future__ import annotations

import statistics

import numpy as np
import torch
from benchmarks.harness import Result

from taiji.language.prefix_attention import MASK_BLOCK, best_backend, tree_attention
from taiji.language.prefix_tree import PackedTree
from tools.gpu.card import Card

CASES = {"a prompt, 3 odd rows": (37, (5, 19, 1)), "one token over a block": (129, (1, 1)), "850 + 8 x 96": (850, (96,) * 8), "8,192 + 16 x 96": (8192, (96,) * 16)}  # fmt: skip
"""Length of the prompt and lengths of the rollouts, by name of the case."""
HEADS = {"9 x 64 over 3": (9, 3, 64), "32 x 128 over 8": (32, 8, 128)}
"""Numbers of query heads and of key heads, and size of a head, by name."""
BARS = {torch.float32: 2e-5, torch.bfloat16: 2e-2}


def tree_of(prompt: int, rows: tuple[int, ...]) -> PackedTree:
    """Return the tree of one prompt with several continuations."""
    random = np.random.default_rng(0)
    start = random.integers(5, 100, prompt).tolist()
    return PackedTree([start + random.integers(100 + i, 200 + i, n).tolist() for i, n in enumerate(rows)])


def error(found: torch.Tensor, reference: torch.Tensor) -> float:
    """Return the norm of the difference divided by the norm of the reference."""
    return float((found.double() - reference.double()).norm() / reference.double().norm())


def measure(card: Card, result: Result) -> None:
    """Add a row per case, and check that errors are at most the limit for the data type (:data:`BARS`)."""
    flex, again = False, 0.0
    cases = dict(list(CASES.items())[: 2 if card.quick else None])
    for dtype in (torch.float32, torch.bfloat16):
        worst = 0.0
        for name, (prompt, rows) in cases.items():
            tree = tree_of(prompt, rows)
            for heads, (queries, keys, size) in HEADS.items():
                generator = torch.Generator().manual_seed(0)
                shapes = [(1, h, len(tree), size) for h in (queries, keys, keys)]
                inputs = [torch.randn(s, generator=generator).to(card.device, dtype) for s in shapes]
                upstream = torch.randn(1, len(tree), queries, size, generator=generator).to(card.device, dtype)
                backend = best_backend(inputs[0], inputs[2])
                flex |= backend == "flex"
                long = len(tree) > 4096
                exact = _run([t.float() if long else t.double() for t in inputs], upstream, tree, "masked")
                found = _run(inputs, upstream, tree, backend)
                errors = [error(a, b) for a, b in zip(found, exact)]
                worst, again = max(worst, *errors), max(again, twice(inputs, upstream, tree, backend))
                seconds = [
                    statistics.median(card.seconds(lambda i=inputs, u=upstream, b=way, t=tree: _run(i, u, t, b), 5))
                    for way in ("flex" if card.device == "cuda" and len(tree) >= MASK_BLOCK else backend, "masked")
                ]
                result.rows.append(
                    {"part": "attention", "case": name, "heads": heads, "type": str(dtype)[6:], "backend": backend,
                     "forward error": errors[0], "gradient error": max(errors[1:]), "ms": 1e3 * seconds[0], "masked ms": 1e3 * seconds[1]}
                )  # fmt: skip
                result.so_far()
        result.at_most(f"attention along the tree, {str(dtype)[6:]}: worst relative error", worst, BARS[dtype])
    result.at_most(
        "attention along the tree: a second backward pass compared with the first, worst relative error", again, 1e-2
    )
    if card.device == "cuda":
        result.at_least("attention along the tree runs as FlexAttention", float(flex), 1.0)


def _run(inputs: list[torch.Tensor], upstream: torch.Tensor, tree: PackedTree, backend: str) -> list[torch.Tensor]:
    """Return the output and the gradients."""
    leaves = [t.detach().requires_grad_() for t in inputs]
    out = tree_attention(*leaves, tree, backend=backend)  # type: ignore[arg-type]
    return [out.detach(), *torch.autograd.grad(out, leaves, upstream.to(out.dtype))]


def twice(inputs: list[torch.Tensor], upstream: torch.Tensor, tree: PackedTree, backend: str) -> float:
    """Return the error of a second backward pass through the same graph, relative to the first one. POPO makes one pass
    per reward."""
    leaves = [t.detach().requires_grad_() for t in inputs]
    out = tree_attention(*leaves, tree, backend=backend)  # type: ignore[arg-type]
    first = [t.clone() for t in torch.autograd.grad(out, leaves, upstream.to(out.dtype), retain_graph=True)]
    return max(error(b, a) for a, b in zip(first, torch.autograd.grad(out, leaves, upstream.to(out.dtype))))
