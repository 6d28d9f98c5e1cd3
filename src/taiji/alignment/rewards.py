"""The two rewards of §5 of the Taiji paper: semantic similarity of the answer, and the ranker's score of the answer.

A reward is a function ``(examples, completions) -> float64 array (B,)``, with NaN where it does not apply. A malformed
answer does not raise an exception: it gets 0, the smallest value of either reward. The rewards are kept separate and
are not summed here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from taiji.alignment.reward_table import Grounded, RewardTable
from taiji.core.errors import ArtifactError, InputError
from taiji.reasoning.answers import parse

if TYPE_CHECKING:
    from taiji.language.embed import Embedder

Reward = Callable[[Sequence[str], Sequence[str]], np.ndarray]


class Answers:
    """Parser and embedder of completions. Both rewards read the same batch, so the last batch is cached."""

    def __init__(self, embedder: Embedder) -> None:
        self.embedder = embedder
        self._last: tuple[tuple[str, ...], tuple[np.ndarray, np.ndarray]] | None = None

    def read(self, completions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return a mask of well-formed completions (B,) and the unit vector of each answer (B, d), zero for a malformed
        one."""
        key = tuple(completions)
        if self._last is None or self._last[0] != key:
            answers = [parse(text) for text in completions]
            well = np.array([answer.well_formed for answer in answers], dtype=bool)
            vectors = self.embedder.encode([answer.text if answer.well_formed else "" for answer in answers])
            self._last = (key, (well, np.asarray(vectors, dtype=np.float32)))
        return self._last[1]


def semantic_reward(table: RewardTable, answers: Answers) -> Reward:
    """Return the semantic reward: the cosine between the answer and the text of the true item, clipped to [0, 1]; 0 for
    a malformed answer."""
    same_embedder(table, answers.embedder)

    def reward(examples: Sequence[str], completions: Sequence[str]) -> np.ndarray:
        well, vectors = answers.read(completions)
        cosine = np.einsum("bd,bd->b", vectors, table.target_vectors(examples)).astype(np.float64)
        return np.where(well, np.clip(cosine, 0.0, 1.0), 0.0)

    return reward


def preference_reward(table: RewardTable, answers: Answers) -> Reward:
    """Return the preference reward: the grounded item's CTCVR, min-max normalised over the candidates of the example; 0
    for a malformed answer."""
    same_embedder(table, answers.embedder)

    def reward(examples: Sequence[str], completions: Sequence[str]) -> np.ndarray:
        well, vectors = answers.read(completions)
        return np.where(well, table.ground(examples, vectors).reward, 0.0)

    return reward


def ground_rollouts(
    table: RewardTable, answers: Answers, examples: Sequence[str], completions: Sequence[str]
) -> tuple[np.ndarray, Grounded]:
    """Return a mask of the well-formed completions (B,), and their grounding, for reports."""
    well, vectors = answers.read(completions)
    return well, table.ground(examples, vectors)


def for_trl(name: str, reward: Reward) -> Callable[..., list[float | None]]:
    """Wrap a reward for TRL: it reads the column ``example`` of the dataset, returns None for NaN, and is logged under
    its name."""

    def function(prompts: Any, completions: Sequence[Any], example: Sequence[str], **_: Any) -> list[float | None]:
        texts = [c if isinstance(c, str) else "".join(m["content"] for m in c) for c in completions]
        values = np.asarray(reward(list(example), texts), dtype=np.float64)
        if values.shape != (len(texts),) or np.isinf(values).any():
            raise InputError(
                f"The reward {name!r} returned an invalid value.",
                expected=f"({len(texts)},) finite numbers or NaN",
                found=f"shape {values.shape}, {np.isinf(values).sum()} infinite",
            )
        return [None if np.isnan(value) else float(value) for value in values]

    function.__name__ = name
    return function


def same_embedder(table: RewardTable, embedder: Embedder) -> None:
    """Raise an ArtifactError if the reward table was built with a different embedder."""
    if table.embedder != embedder.version:
        raise ArtifactError(
            "The reward table was built with a different embedder.",
            expected=table.embedder,
            found=embedder.version,
            fix="build the reward table again",
        )
