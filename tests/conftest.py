"""Fixtures shared by the whole suite."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # before PyTorch: a process forked from one with a pool of threads stands still
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # a GPU takes part only where the caller names it

from taiji.language.tiny import tiny_causal_lm

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# The same examples every time, however slow the machine: a suite that fails by chance tells nothing about a change.
hypothesis.settings.register_profile(
    "steady", derandomize=True, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("steady")


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> None:
    """Raise for bytes and floats without an id of their own: those may hold a time, or what rounding left."""
    if isinstance(val, bytes | float):
        raise pytest.UsageError(f"parametrize: give {argname}={val!r} an explicit id (ids=… or pytest.param(…, id=…))")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the slow tests out where ``-m`` does not name them."""
    if "slow" in config.getoption("-m"):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Iterator[None]:
    """Collect tests without garbage collection, and exempt what is there afterwards: each training collects garbage by
    itself.

    Otherwise it would walk through all modules and collected tests hundreds of times.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


@pytest.fixture
def tiny_lm():
    """A fresh ``(model, tokenizer)``: a two-layer Llama with random weights (fp32) and a byte-level BPE tokenizer."""
    return tiny_causal_lm()


@pytest.fixture(scope="session")
def public_data() -> Path:
    """The folder of public datasets, named by the environment variable TAIJI_TEST_DATA."""
    folder = os.environ.get("TAIJI_TEST_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("TAIJI_TEST_DATA does not name a folder of public datasets")
    return Path(folder)
