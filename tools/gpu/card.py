"""The card: what it is, what it can do, and how its work is timed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from benchmarks.measuring import peak_memory


@dataclass(frozen=True)
class Card:
    """A device and how large the shapes are that it is given.

    Attributes:
        device: `cuda`, or `cpu` for a dry run.
        quick: tiny shapes and few repeats: the script runs, its figures prove nothing.
    """

    device: str
    quick: bool

    def wait(self) -> None:
        """Wait until the device has done what it was given."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def seconds(self, action: Callable[[], Any], repeats: int = 5, warmup: int = 1) -> list[float]:
        """Return the seconds of each repeat."""
        found = []
        for repeat in range(warmup + repeats):
            self.wait()
            start = time.perf_counter()
            action()
            self.wait()
            if repeat >= warmup:
                found.append(time.perf_counter() - start)
        return found

    def peak(self, action: Callable[[], Any]) -> float:
        """Return the GB that an action needed at its peak beside what was there before."""
        if self.device != "cuda":
            return peak_memory(action)[1] / 1e3
        self.free()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        action()
        self.wait()
        return (torch.cuda.max_memory_allocated() - before) / 1e9

    def free(self) -> None:
        """Give unused memory back, so that a peak is an action's own."""
        import gc

        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()


@dataclass(frozen=True)
class Ceilings:
    """Rates of the card: products (FLOP/s) in bf16 and fp32, and bytes moved a second (read and written)."""

    bfloat16: float
    float32: float
    bandwidth: float

    @classmethod
    def of(cls, card: Card) -> Ceilings:
        """Measure them: a product of 8,192 × 8,192 random matrices, a copy of 4 GiB."""
        size = 256 if card.quick else 8192
        found = {}
        for dtype in (torch.bfloat16, torch.float32):
            left, right = (torch.randn(size, size, device=card.device, dtype=dtype) for _ in range(2))
            found[dtype] = 2 * size**3 / statistics.median(card.seconds(lambda a=left, b=right: a @ b, 7, 3))
        source = torch.randn((1 << 20) if card.quick else (1 << 30), device=card.device)
        target = torch.empty_like(source)
        moved = 2 * source.numel() * 4 / statistics.median(card.seconds(lambda: target.copy_(source), 7, 3))
        return cls(found[torch.bfloat16], found[torch.float32], moved)


def facts(card: Card) -> dict[str, Any]:
    """Return the card's name, memory, and the versions that matter on it."""
    if card.device != "cuda":
        return {"card": "none: a dry run on the processor"}
    about = torch.cuda.get_device_properties(0)
    return {"card": about.name, "memory GB": about.total_memory / 1e9, "cuda": torch.version.cuda}
