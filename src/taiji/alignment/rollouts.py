"""Bounded sample of each step's rollouts with their rewards, for inspection."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from taiji.alignment.rewards import Reward
from taiji.core.artifacts import write_parquet, write_text

KEPT = 16
"""Number of rollouts kept per step, rounded down to whole groups of one prompt, but at least one group."""
LOG = "rollouts.jsonl"
FILE = "rollouts.parquet"


class Rollouts:
    """Recorder that keeps the first groups of the batch scored in each step.

    Args:
        folder: folder of the log, to which lines are appended at the end of each step, so that an interrupted job keeps
            them.
        names: names of the rewards.
        generations: number of rollouts per prompt, which are consecutive in a batch.
        lines: log lines of the steps up to the checkpoint from which the run resumes.
    """

    def __init__(
        self, folder: Path, names: Sequence[str], generations: int, lines: Sequence[dict[str, Any]] = ()
    ) -> None:
        self.path, self.names, self.lines = folder / LOG, list(names), list(lines)
        self.kept = max(generations, KEPT // generations * generations)
        self._batch: list[dict[str, Any]] = []
        write_text(self.path, "".join(json.dumps(line, sort_keys=True) + "\n" for line in self.lines))

    def watched(self, name: str, reward: Reward) -> Reward:
        """Wrap a reward so that this recorder keeps the batches that the reward scores."""

        def function(examples: Sequence[str], completions: Sequence[str]) -> np.ndarray:
            values = reward(examples, completions)
            if not self._batch or name in self._batch[0]["rewards"]:  # the first reward of a new batch
                self._batch = [
                    {"example": e, "completion": c, "rewards": {}}
                    for e, c in zip(examples[: self.kept], completions[: self.kept])
                ]
            for row, value in zip(self._batch, np.asarray(values, dtype=np.float64).reshape(-1)):
                row["rewards"][name] = float(value) if math.isfinite(value) else None
            return values

        return function

    def close_step(self, step: int) -> None:
        """Append the last scored batch to the log as the batch of a finished step."""
        rows = [{"step": step, **row} for row in self._batch]
        self._batch = []
        self.lines += rows
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write("".join(json.dumps(row, sort_keys=True) + "\n" for row in rows))

    def save(self, folder: Path) -> None:
        """Write ``rollouts.parquet``: ``step``, ``example``, ``completion``, ``rewards`` (one field per reward; null if
        it does not apply)."""
        schema: dict[str, Any] = {
            "step": pl.UInt32,
            "example": pl.String,
            "completion": pl.String,
            "rewards": pl.Struct(dict.fromkeys(self.names, pl.Float64)),
        }
        write_parquet(folder / FILE, pl.DataFrame(self.lines, schema=schema))
