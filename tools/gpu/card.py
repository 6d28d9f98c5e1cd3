"""The GPU under test: its facts, its measured rates, and the timing of work on it."""

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
    """Device under test, and the size of the shapes that it is given.

    Attributes:
        device: `cuda`, or `cpu` for a dry run.
        quick: True for tiny shapes and few repeats, which only show that the script runs.
    """

    device: str
    quick: bool

    def wait(self) -> None:
        """Wait until the device has finished its work."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def seconds(self, action: Callable[[], Any], repeats: int = 5, warmup: int = 1) -> list[float]:
        """Return the seconds of each repeat of an action."""
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
        """Return the memory in GB that an action needs at its peak, in addition to what was in use before."""
        if self.device != "cuda":
            return peak_memory(action)[1] * 2**20 / 1e9
        self.free()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        action()
        self.wait()
        return (torch.cuda.max_memory_allocated() - before) / 1e9

    def free(self) -> None:
        """Release unused memory, so that the next peak is that of the next action alone."""
        import gc

        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()


@dataclass(frozen=True)
class Ceilings:
    """Measured rates of the device: matrix products in bf16 and in fp32 (FLOP/s), and bytes read and written per
    second."""

    bfloat16: float
    float32: float
    bandwidth: float

    @classmethod
    def of(cls, card: Card) -> Ceilings:
        """Measure the rates, with a product of random matrices of size 8,192 × 8,192 and with a copy of 4 GiB."""
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
    """Return the name and memory of the GPU, and the version of CUDA."""
    if card.device != "cuda":
        return {"card": "none: a dry run on the processor"}
    about = torch.cuda.get_device_properties(0)
    return {"card": about.name, "memory GB": about.total_memory / 1e9, "cuda": torch.version.cuda}
