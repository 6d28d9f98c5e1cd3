"""Tools of the speed benchmarks: peak memory, measured rates of the machine, lower bounds of the time of a step, and
prompts with an exact number of tokens."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from taiji.core.process_memory import give_back_memory


def peak_memory(action: Callable[[], Any]) -> tuple[Any, float]:
    """Run the action. Return its result and the growth of the process's resident memory at its peak, in MiB (NaN if not
    on Linux)."""
    give_back_memory()
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
        before = _status("VmRSS")
    except OSError:
        return action(), float("nan")
    result = action()
    return result, (_status("VmHWM") - before) / 1024


def _status(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith(field)).split()[1])


def best_seconds(action: Callable[[], Any], repeats: int = 7) -> float:
    """Return the shortest time of several runs, which other work on the machine affects least. One run before them is
    not timed."""
    action()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


@dataclass(frozen=True)
class Rates:
    """Measured rates of the machine: matrix products in one data type (FLOP/s) and memory reads (bytes/s)."""

    flops: float
    bandwidth: float


def rates(dtype: Any) -> Rates:
    """Measure the rates. Matrix products have the two shapes of a SmolLM2-135M feed-forward layer on 1,600 tokens, and
    the faster one counts. Memory is read by a sum over 256 MiB."""
    import torch

    found = []
    for inner, outer in ((576, 1536), (1536, 576)):
        x, w = torch.randn(1600, inner, dtype=dtype), torch.randn(outer, inner, dtype=dtype)
        found.append(2 * 1600 * inner * outer / best_seconds(lambda x=x, w=w: torch.nn.functional.linear(x, w), 15))
    big = torch.ones(64 << 20)
    return Rates(max(found), big.numel() * 4 / best_seconds(big.sum))


@dataclass(frozen=True)
class Sizes:
    """Sizes of a language model that determine the lower bounds."""

    linear: int
    """Number of weights of the linear layers, without the head."""
    head: int
    """Number of weights of the head, which computes the logits."""
    attention: int
    """Floating-point operations per query-key pair, summed over the layers."""

    @classmethod
    def of(cls, model: Any) -> Sizes:
        """Return the sizes of a transformers model."""
        import torch

        head = model.get_output_embeddings()
        linear = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head)
        config = model.config
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return cls(linear, head.weight.numel(), 4 * config.num_attention_heads * width * config.num_hidden_layers)

    def update_floor(self, prompt: int, group: int, new: int, rate: Rates) -> float:
        """Return a lower bound of the seconds of a GRPO update that reads the prompt once for the whole group.

        The bound is the time of a forward pass and of a backward pass with as many operations, at the measured rate.
        With LoRA the large weights need no gradient, so the backward pass takes no more operations than the forward
        pass.

        Args:
            prompt: tokens of the prompt.
            group: number of completions.
            new: tokens of each completion.
            rate: rates of the machine.
        """
        tokens, scored = prompt + group * new, group * new
        pairs = prompt * prompt / 2 + group * new * (prompt + new / 2)
        return 2 * (2 * self.linear * tokens + 2 * self.head * scored + self.attention * pairs) / rate.flops

    def rollout_floor(self, prompt: int, new: int, rate: Rates, itemsize: int) -> float:
        """Return a lower bound of the seconds of a rollout: process the prompt once, then read all weights once per new
        token.

        Args:
            prompt: tokens of the prompt.
            new: tokens of each completion.
            rate: rates of the machine.
            itemsize: bytes per weight.
        """
        prefill = 2 * self.linear * prompt + self.attention * prompt * prompt / 2
        return prefill / rate.flops + new * (self.linear + self.head) * itemsize / rate.bandwidth


def exact_prompts(tokenizer: Any, lengths: Sequence[int], seed: int = 0) -> list[str]:
    """Return one text per length, with exactly that many tokens. Its words are random, and each is one token with its
    leading space."""
    words = [
        w
        for w in tokenizer.get_vocab()
        if w.startswith("Ġ") and w[1:].isalpha() and w.isprintable() and w[1:].isascii() and len(w) > 3
    ]
    words = sorted(w[1:] for w in words)
    rng = np.random.default_rng(seed)
    texts = []
    for length in lengths:
        text = "".join(" " + words[i] for i in rng.integers(0, len(words), length))
        assert len(tokenizer(text, add_special_tokens=False).input_ids) == length, (
            "the text does not have the requested number of tokens"
        )
        texts.append(text)
    return texts


def small_model(dtype: str) -> Any:
    """Return a random model with four layers, for quick runs."""
    import torch

    from taiji.language.causal_lm import LanguageModel
    from taiji.language.tiny import tiny_causal_lm

    model, tokenizer = tiny_causal_lm(hidden=128, layers=4)
    return LanguageModel(model.to(getattr(torch, dtype)), tokenizer, "random")
