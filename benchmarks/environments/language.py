"""Environment of `benchmarks.pareto`: a tiny language model and the real trainer, with two conflicting rewards.

Let a be the share of "A tokens" in a completion, and b the share of "B tokens"; each kind is an eighth of the
vocabulary. The rewards are sqrt(a) and sqrt(b). The best attainable pairs of rewards (r1, r2) lie on the arc r1^2 +
r2^2 = 1. The even compromise is (0.71, 0.71), and training on one reward alone drives the other to zero. ``scale``
multiplies the second reward, so that the rewards have different units, as often in practice.
"""

from __future__ import annotations

import contextlib
import io
import logging
import time
from dataclasses import dataclass
from itertools import pairwise
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

CLASSES = 8
PROMPTS = ["milk and bread", "coffee", "what next?", "tea with milk", "rice", "beans", "a list", "item"] * 4


@dataclass
class Run:
    """One training run.

    Attributes:
        curves: (steps, 2) mean rewards per step, without ``scale``.
        weights: (steps, 2) weights of the rewards per step.
        seconds: duration of the training.
        aggregation: name of the method that combines the advantages of the rewards.
        scale: name of the standard deviation by which advantages are divided (``scale_rewards`` of TRL).
    """

    curves: np.ndarray
    weights: np.ndarray
    seconds: float
    aggregation: str
    scale: str

    def final(self) -> np.ndarray:
        """Return the mean rewards over the last tenth of the run (at least 3 steps)."""
        return self.curves[-max(3, len(self.curves) // 10) :].mean(0)

    def gain(self) -> np.ndarray:
        """Return the increase of each reward since the first two steps."""
        return self.final() - self.curves[:2].mean(0)


def reward(kind: int, scale: float) -> Any:
    """Return a reward function: ``scale`` times the root of the share of tokens whose id is ``kind`` modulo 8."""

    def function(completion_ids: list[list[int]], **_: Any) -> list[float]:
        return [
            scale * float(np.sqrt(np.mean([t % CLASSES == kind for t in ids]))) if ids else 0.0
            for ids in completion_ids
        ]

    function.__name__ = f"class{kind}"
    return function


def run(seed: int, steps: int, *, scale: float = 1.0, **options: Any) -> Run:
    """Train the tiny language model for ``steps`` steps of 4 prompts, with 4 rollouts of 12 tokens each."""
    from datasets import Dataset, disable_progress_bars
    from transformers.utils import logging as transformers_logging

    from taiji.alignment import ParetoGRPOConfig, ParetoGRPOTrainer
    from taiji.language.tiny import tiny_causal_lm

    disable_progress_bars()
    transformers_logging.set_verbosity_error()
    logging.getLogger("accelerate").setLevel(logging.ERROR)
    model, tokenizer = tiny_causal_lm(hidden=32, layers=2, heads=4, seed=seed)
    with TemporaryDirectory() as folder:
        defaults = {
            "per_device_train_batch_size": 16,
            "num_generations": 4,
            "max_completion_length": 12,
            "max_steps": steps,
            "learning_rate": 2e-2,
            "lr_scheduler_type": "constant",
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
            "use_cpu": True,
            "bf16": False,
            "seed": seed,
            "gradient_checkpointing": False,
            "disable_tqdm": True,
        }
        arguments = ParetoGRPOConfig(output_dir=folder, **{**defaults, **options})
        trainer = ParetoGRPOTrainer(
            model=model,
            reward_funcs=[reward(0, 1.0), reward(1, scale)],
            args=arguments,
            train_dataset=Dataset.from_dict({"prompt": PROMPTS}),
            processing_class=tokenizer,
        )
        # No token ends a rollout early, so that every run generates the same number of tokens.
        trainer.generation_config.eos_token_id = trainer.eos_token_ids = [-1]
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            trainer.train()
        seconds = time.perf_counter() - start
    lines = [line for line in trainer.state.log_history if "reward" in line]
    curves = np.array([[line["rewards/class0/mean"], line["rewards/class1/mean"] / scale] for line in lines])
    weights = np.array([[line["weight/class0"], line["weight/class1"]] for line in lines])
    return Run(curves, weights, seconds, str(arguments.aggregation), str(trainer.scale_rewards))


def distance_to_front(point: np.ndarray, front: np.ndarray) -> float:
    """Return the distance by which a point lies below a front; 0 if it lies on or above the front.

    The front is piecewise linear and goes through those of the points ``front`` that no other point dominates.
    """
    best = front[[not ((front > p).all(1)).any() for p in front]]
    best = best[np.argsort(best[:, 0], kind="stable")]
    if len(best) == 1:
        return float(np.linalg.norm(np.maximum(best[0] - point, 0)))
    found = []
    for a, b in pairwise(best):
        t = np.linspace(0, 1, 51)[:, None]
        segment = a + t * (b - a)
        if (point >= segment).all(1).any():
            return 0.0
        found.append(np.linalg.norm(np.maximum(segment - point, 0), axis=1).min())
    return float(min(found))
