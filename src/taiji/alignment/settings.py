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
INTERMITTENT = ("popo",)
"""Rules that can observe only some of the steps."""


class RewardTableSettings(Settings):
    """Candidates of the reward table: the items that are scored for each prompt, and to which an answer can be
    matched."""

    exposed_candidates: int = Field(default=64, ge=0)
    """Largest number of candidates from the items that the user was shown in the LLM period."""
    popular_candidates: int = Field(default=100, ge=1)
    """Number of candidates from the most popular items before the LLM period."""
    random_candidates: int = Field(default=100, ge=0)
    """Number of candidates drawn uniformly at random, seeded per example."""


class AlignmentSettings(Settings):
    """GRPO with adaptive reward weights."""

    weighting: Weighting = "popo"
    """Rule that sets the weights of the rewards; with ``fixed`` they stay constant, as in plain TRL."""
    mode: Literal["robust", "paper"] = "robust"
    """POPO's update: `robust` (our variant, with clipping, averaging and a minimum weight) or `paper` (the paper's raw
    exponentiated gradient)."""
    estimator: Literal["same-batch", "cross-batch", "directional"] = "cross-batch"
    """Estimator of POPO's indicators (inner products of the rewards' gradients, by which POPO changes the weights). The
    cost of ``directional`` does not depend on the number of rewards."""
    preference: tuple[float, ...] | None = None
    """Target of ``popo`` and ``popo-covariance``: the weights of the desired trade-off (normalised to sum 1); ``null``
    for equal weights."""
    weights: tuple[float, ...] | None = None
    """Initial weights (which stay constant under ``fixed``); ``null`` for equal weights."""
    light_statistics: Literal["batch", "group"] = "batch"
    """Rollouts over which POPO-light computes means and standard deviations: the whole `batch`, or the `group` of each
    prompt, with the results averaged over the prompts."""
    generations: int = Field(default=4, ge=2)
    """Number of rollouts per prompt (G)."""
    prompts_per_step: int = Field(default=4, ge=1)
    """Number of prompts per optimiser step."""
    micro_batch: int = Field(default=8, ge=1)
    """Number of rollouts per forward pass and process; times the number of processes, it must divide generations *
    prompts_per_step."""
    steps: int | None = Field(default=None, ge=1)
    """Number of optimiser steps; ``null`` for one pass over the prompts."""
    learning_rate: float = Field(default=2e-5, gt=0)
    """Peak learning rate (AdamW with linear decay)."""
    beta: float = Field(default=0.02, ge=0)
    """Weight of the KL divergence from the initial model."""
    max_completion_tokens: int = Field(default=192, ge=1)
    """Longest rollout, in tokens."""
    temperature: float = Field(default=1.0, gt=0)
    """Sampling temperature of the rollouts."""
    lora_rank: int = Field(default=16, ge=0)
    """Rank of the LoRA adapter, merged at the end; 0 trains all parameters."""
    weight_every: int = Field(default=1, ge=1)
    """Number of steps from one observation of the gradients to the next (only ``popo``). Between them the weights stay
    constant, and a step costs as much as with ``fixed``. An observation moves the weights as far as that many steps."""
    weight_warmup: int = Field(default=2, ge=0)
    """Number of steps before gradient-based weights start to change (LoRA starts at B = 0, where the inner products of
    gradients carry little information)."""
    token_weighting: Literal["none", "pepo"] = "none"
    """`pepo` weights each token's advantage as in PEPO, in addition to the reward weights. The evidence with which PEPO
    compares a token is the user's history in the prompt."""
    rollouts: Literal["local", "vllm-colocate", "vllm-server"] = "local"
    """Generator of rollouts: the model in training, or vLLM through TRL (inside each training process, or on a separate
    `trl vllm-serve`). With vLLM, prompts are not shared between their rollouts."""
    rollout_server: str = "http://127.0.0.1:8000"
    """Address of `trl vllm-serve`."""
    checkpoint_every: int = Field(default=5, ge=1)
    """Number of steps between two checkpoints, from which an interrupted run resumes."""
    reward_table: RewardTableSettings = RewardTableSettings()

    @model_validator(mode="after")
    def _options_have_a_reader(self) -> AlignmentSettings:
        if self.preference is not None and self.weighting not in STEERED:
            raise ValueError(f"preference is only used by {' and '.join(STEERED)}, but weighting is {self.weighting}")
        if self.weight_every > 1 and self.weighting not in INTERMITTENT:
            raise ValueError(
                f"weight_every is only used by {' and '.join(INTERMITTENT)}, but weighting is {self.weighting}"
            )
        return self

    @field_validator("preference", "weights")
    @classmethod
    def _positive(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if value is not None and (not value or min(value) <= 0):
            raise ValueError("expected at least one weight, all positive")
        return value
