"""A stand-in for the package vllm."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest


def install(patch: pytest.MonkeyPatch, engine: type, parameters: Any) -> None:
    """Let ``import vllm`` find these two, and a base of logits processors that does nothing."""
    patch.setitem(sys.modules, "vllm", SimpleNamespace(LLM=engine, SamplingParams=parameters))
    for name in ("vllm.v1", "vllm.v1.sample"):
        patch.setitem(sys.modules, name, SimpleNamespace())
    patch.setitem(sys.modules, "vllm.v1.sample.logits_processor", SimpleNamespace(AdapterLogitsProcessor=object))
    patch.delitem(sys.modules, "taiji.language.vllm_penalty", raising=False)
