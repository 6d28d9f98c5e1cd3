"""Settings of the alignment package (no heavy imports)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from taiji.core.settings import Settings

Weighting = Literal[
    "fixed",
    "popo",
    "popo-light",
    "popo-covariance",
    "gdpo",
    "mgda",
    "pcgrad",
    "upgrad",
    "fairgrad",
    "dwa",
    "uncertainty",
    "random",
    "feedback",
]

STEERED = ("popo", "popo-covariance")
"""Rules that support a preference."""


class RewardTableSettings(Settings):
    """The reward table: items that an answer can be grounded to."""

    exposed_candidates: int = Field(default=64, ge=0)
    """Upper limit of the user's exposed items from the LLM period."""
    popular_candidates: int = Field(default=100, ge=1)
    """Most popular items before the LLM period."""
    random_candidates: int = Field(default=100, ge=0)
    """Items drawn uniformly, seeded per example."""


class AlignmentSettings(Settings):
    """GRPO with adaptive reward weights."""

    weighting: Weighting = "popo"
    """The rule that sets the weights of the rewards; ``fixed`` is stock TRL."""
    mode: Literal["robust", "paper"] = "robust"
    """POPO's update: ours (clipped, averaged, with a minimum weight) or the raw exponentiated gradient of the paper."""
    estimator: Literal["same-batch", "cross-batch", "directional"] = "cross-batch"
    """Estimator of POPO's indicators; ``directional`` costs the same for any number of rewards."""
    preference: tuple[float, ...] | None = None
    """Target of ``popo`` and ``popo-covariance``: the trade-off's weights (they are normalised); ``null`` is equal weights."""
    weights: tuple[float, ...] | None = None
    """Initial weights (constant ones under ``fixed``); ``null`` is equal weights."""
    light_statistics: Literal["batch", "group"] = "batch"
    """POPO-light's means and deviations: over the whole batch, or within each prompt's rollouts and averaged."""
    generations: int = Field(default=4, ge=2)
    """Rollouts per prompt (G)."""
    prompts_per_step: int = Field(default=4, ge=1)
    """Prompts per optimiser step."""
    micro_batch: int = Field(default=8, ge=1)
    """Rollouts per forward pass; must divide generations * prompts_per_step."""
    steps: int | None = Field(default=None, ge=1)
    """Optimiser steps; ``null`` is one pass over the prompts."""
    learning_rate: float = Field(default=2e-5, gt=0)
    """Peak learning rate (AdamW, linear decay)."""
    beta: float = Field(default=0.02, ge=0)
    """Weight of the KL divergence to the starting model."""
    max_completion_tokens: int = Field(default=192, ge=1)
    """Longest rollout."""
    temperature: float = Field(default=1.0, gt=0)
    """Sampling temperature of the rollouts."""
    lora_rank: int = Field(default=16, ge=0)
    """Rank of the LoRA adapter, merged at the end; 0 trains all parameters."""
    weight_warmup: int = Field(default=2, ge=0)
    """Steps before gradient-based weights start to move (LoRA starts at B = 0, where inner products carry little information)."""
    token_weighting: Literal["none", "pepo"] = "none"
    """PEPO's token weights on top (evidence: the prompt's history tokens)."""
    rollouts: Literal["local", "vllm-colocate", "vllm-server"] = "local"
    """Writer of rollouts: the model as it trains, or vLLM through TRL (in each training process, or a `trl vllm-serve` of its own); shared prefixes are then not used."""
    rollout_server: str = "http://127.0.0.1:8000"
    """Address of `trl vllm-serve`."""
    checkpoint_every: int = Field(default=5, ge=1)
    """Steps between two checkpoints, from which a killed run resumes."""
    reward_table: RewardTableSettings = RewardTableSettings()

    @model_validator(mode="after")
    def _preference_has_a_reader(self) -> AlignmentSettings:
        if self.preference is not None and self.weighting not in STEERED:
            raise ValueError(f"preference is read by {' and '.join(STEERED)} only, weighting is {self.weighting}")
        return self

    @field_validator("preference", "weights")
    @classmethod
    def _positive(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if value is not None and (not value or min(value) <= 0):
            raise ValueError("weights must be positive")
        return value
