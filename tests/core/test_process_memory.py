"""Memory that is free goes back to the system."""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path

import pytest

from taiji.core.process_memory import give_back_memory


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library has no malloc_trim")
def test_pages_between_live_ones_are_given_back():
    held = [bytes(4000) for _ in range(50_000)]  # 200 MB
    full, kept = resident(), held[::500]
    del held
    give_back_memory()
    assert full - resident() > 100e6
    assert len(kept) == 100


def test_cycles_are_freed():
    class Node:
        alive = 0

        def __init__(self):
            self.itself = self
            Node.alive += 1

        def __del__(self):
            Node.alive -= 1

    gc.disable()
    try:
        Node()
        assert Node.alive == 1
        give_back_memory()
        assert Node.alive == 0
    finally:
        gc.enable()
