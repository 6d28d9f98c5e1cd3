"""Alignment: GRPO with reward weights that adapt (POPO and its peers), the offline reward environment, token weights.

``ParetoGRPOTrainer`` and ``ParetoGRPOConfig`` are drop-in replacements of TRL's; ``align`` runs one job from prompts to
a merged model folder. Everything is imported on first use, so that reading settings needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from taiji.core.optional import needs

_HOMES = {
    "ParetoGRPOConfig": "trainer_config",
    "ParetoGRPOTrainer": "trainer",
    "align": "job",
    "Environment": "reward_table",
    "build_environment": "reward_table",
    "semantic_reward": "rewards",
    "preference_reward": "rewards",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        with needs("llm"):
            return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
