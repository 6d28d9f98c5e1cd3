"""The two rewards of an answer that is a set of intents (our definitions); see :mod:`taiji.alignment.rewards` for those of one item.

Semantic: coverage of the next items by the intents, minus redundancy. Preference: the reward ranker's value of the slate that the intents retrieve
among the example's candidates. Both lie in [0, 1]; their scaling is frozen with the reward table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from taiji.alignment.reward_table import Grounded, RewardTable
from taiji.alignment.rewards import Reward, same_embedder
from taiji.language.embed import encode_sets
from taiji.metrics.intent_sets import best_cosines, coverage, redundancy, slate_values
from taiji.reasoning.answers import parse

if TYPE_CHECKING:
    from taiji.language.embed import Embedder

REPEATED = 0.5
"""Penalty, as a share of the semantic reward's range, for a set of repetitions only."""
SLATE = 10
"""Number of candidates that the intents retrieve together."""


class SetAnswers:
    """Reads and embeds completions of up to ``most`` intents; both rewards read the same batch, so the last one is cached."""

    def __init__(self, embedder: Embedder, most: int) -> None:
        self.embedder, self.most = embedder, most
        self._last: tuple[tuple[str, ...], tuple[NDArray[Any], NDArray[Any]]] | None = None

    def read(self, completions: Sequence[str]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the mask of well-formed completions (B,), and their intents' unit vectors (B, m, d), zero where there is none."""
        key = tuple(completions)
        if self._last is None or self._last[0] != key:
            answers = [parse(text, most=self.most) for text in completions]
            well = np.array([answer.well_formed for answer in answers], dtype=bool)
            said = [[intent.text for intent in answer.intents] if answer.well_formed else [] for answer in answers]
            self._last = (key, (well, encode_sets(self.embedder, said, self.most)))
        return self._last[1]


def set_semantic_reward(table: RewardTable, answers: SetAnswers) -> Reward:
    """Coverage of the next items less :data:`REPEATED` times the redundancy, cut to [0, 1]; 0 for a malformed answer."""
    same_embedder(table, answers.embedder)

    def reward(examples: Sequence[str], completions: Sequence[str]) -> NDArray[Any]:
        well, vectors = answers.read(completions)
        values = coverage(vectors, table.set_vectors(examples)) - REPEATED * redundancy(vectors)
        return np.where(well, np.clip(values, 0.0, 1.0), 0.0)

    return reward


def set_preference_reward(table: RewardTable, answers: SetAnswers) -> Reward:
    """Mean reward of the :data:`SLATE` candidates nearest to any intent, between the worst (0) and the best (1) slate of that size; 0 for a malformed answer."""
    same_embedder(table, answers.embedder)

    def reward(examples: Sequence[str], completions: Sequence[str]) -> NDArray[Any]:
        well, vectors = answers.read(completions)
        candidates, values = table.candidate_vectors(examples)
        return np.where(well, slate_values(best_cosines(vectors, candidates), values, SLATE), 0.0)

    return reward


def ground_sets(
    table: RewardTable, answers: SetAnswers, examples: Sequence[str], completions: Sequence[str]
) -> tuple[NDArray[Any], Grounded, list[list[int]]]:
    """Well-formedness (B,), grounding of each first intent, and the candidate items nearest to each of the intents, for reports."""
    well, vectors = answers.read(completions)
    there = np.abs(vectors).sum(axis=2) > 0
    places = [table.ground(examples, vectors[:, place]).items for place in range(answers.most)]
    items = [
        [int(places[place][row]) for place in range(answers.most) if there[row, place]] for row in range(len(well))
    ]
    return well, table.ground(examples, vectors[:, 0]), items
