"""The two rewards of a set answer, which lists several intents (our definitions). :mod:`taiji.alignment.rewards` has
the rewards of single answers.

The semantic reward is the coverage of the next items by the intents, minus the redundancy of the intents. The
preference reward is the reward ranker's value of the slate that the intents retrieve from the candidates of the
example. Both lie in [0, 1] and depend only on the answer and the reward table.
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
from taiji.reasoning.answers import DEEPEST, parse

if TYPE_CHECKING:
    from taiji.language.embed import Embedder

REPEATED = 0.5
"""Penalty, as a share of the semantic reward's range, for a set that consists only of repetitions."""
SLATE = 10
"""Number of candidates that the intents of one answer retrieve together."""


class SetAnswers:
    """Parser and embedder of completions with up to ``most`` intents. Both rewards read the same batch, so the last
    batch is cached."""

    def __init__(self, embedder: Embedder, most: int) -> None:
        self.embedder, self.most = embedder, most
        self._last: tuple[tuple[str, ...], tuple[NDArray[Any], NDArray[Any]]] | None = None

    def read(self, completions: Sequence[str]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return a mask of well-formed completions (B,) and the unit vectors of their intents (B, m, d), zero for
        missing intents."""
        key = tuple(completions)
        if self._last is None or self._last[0] != key:
            answers = [parse(text, DEEPEST, self.most) for text in completions]
            well = np.array([answer.well_formed for answer in answers], dtype=bool)
            said = [[intent.text for intent in answer.intents] if answer.well_formed else [] for answer in answers]
            self._last = (key, (well, encode_sets(self.embedder, said, self.most)))
        return self._last[1]


def set_semantic_reward(table: RewardTable, answers: SetAnswers) -> Reward:
    """Return the semantic reward: the coverage of the next items minus :data:`REPEATED` times the redundancy, clipped
    to [0, 1]; 0 for a malformed answer."""
    same_embedder(table, answers.embedder)

    def reward(examples: Sequence[str], completions: Sequence[str]) -> NDArray[Any]:
        well, vectors = answers.read(completions)
        values = coverage(vectors, table.set_vectors(examples)) - REPEATED * redundancy(vectors)
        return np.where(well, np.clip(values, 0.0, 1.0), 0.0)

    return reward


def set_preference_reward(table: RewardTable, answers: SetAnswers) -> Reward:
    """Return the preference reward: the mean reward, from the table, of the :data:`SLATE` candidates that are nearest
    to any intent.

    It is scaled so that the worst slate of this size gets 0 and the best slate gets 1. A malformed answer gets 0.
    """
    same_embedder(table, answers.embedder)

    def reward(examples: Sequence[str], completions: Sequence[str]) -> NDArray[Any]:
        well, vectors = answers.read(completions)
        candidates, values = table.candidate_vectors(examples)
        return np.where(well, slate_values(best_cosines(vectors, candidates), values, SLATE), 0.0)

    return reward


def ground_sets(
    table: RewardTable, answers: SetAnswers, examples: Sequence[str], completions: Sequence[str]
) -> tuple[NDArray[Any], Grounded, list[list[int]]]:
    """Return, for reports, a mask of the well-formed answers (B,), the grounding of each answer's first intent, and the
    candidate item nearest to each intent (one list per answer)."""
    well, vectors = answers.read(completions)
    there = np.abs(vectors).sum(axis=2) > 0
    places = [table.ground(examples, vectors[:, place]).items for place in range(answers.most)]
    items = [
        [int(places[place][row]) for place in range(answers.most) if there[row, place]] for row in range(len(well))
    ]
    return well, table.ground(examples, vectors[:, 0]), items
