"""Alignment: GRPO with adaptive reward weights (POPO and other methods), the reward table, and token weights.

``ParetoGRPOTrainer`` and ``ParetoGRPOConfig`` are drop-in replacements for TRL's classes; ``align`` runs one job from
prompts to a merged model folder. Names are imported on first use, so reading settings does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from taiji.core.lazy import lazy_names

if TYPE_CHECKING:
    from taiji.alignment.job import align
    from taiji.alignment.reward_table import RewardTable, build_reward_table
    from taiji.alignment.rewards import preference_reward, semantic_reward
    from taiji.alignment.trainer import ParetoGRPOTrainer
    from taiji.alignment.trainer_config import ParetoGRPOConfig

_HOMES = {
    "ParetoGRPOConfig": "trainer_config",
    "ParetoGRPOTrainer": "trainer",
    "RewardTable": "reward_table",
    "align": "job",
    "build_reward_table": "reward_table",
    "preference_reward": "rewards",
    "semantic_reward": "rewards",
}
__all__ = [
    "ParetoGRPOConfig",
    "ParetoGRPOTrainer",
    "RewardTable",
    "align",
    "build_reward_table",
    "preference_reward",
    "semantic_reward",
]

_RENAMED = {"Environment": "RewardTable", "build_environment": "build_reward_table"}
__getattr__ = lazy_names(__name__, _HOMES, extra="llm", renamed=_RENAMED)
