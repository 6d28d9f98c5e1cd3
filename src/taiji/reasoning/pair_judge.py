"""Judges of related item pairs: a rule, an embedder, a model behind an endpoint, or any function.

A judge sees the items' texts and nothing else. Pairs come from the training log, so that no test interaction reaches it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taiji.core.errors import InputError
from taiji.language.embed import Embedder
from taiji.reasoning.endpoint import EndpointTeacher
from taiji.reasoning.guards import words

Array = NDArray[Any]
Pair = tuple[str, str]
PairJudge = Callable[[Sequence[Pair]], Sequence[bool]]
"""Maps the texts of pairs to True for each related pair."""
QUESTION = (
    "Two items of a catalogue:\n1. {first}\n2. {second}\n"
    "Would somebody who took the first be likely to want the second, too? Begin the answer with yes or no."
)
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SharedWords:
    """Keep pairs whose texts have at least ``least`` words in common."""

    least: int = 1

    def __call__(self, pairs: Sequence[Pair]) -> list[bool]:
        """See :data:`PairJudge`."""
        return [len(set(words(a)) & set(words(b))) >= self.least for a, b in pairs]


@dataclass(frozen=True)
class Cosine:
    """Keep pairs whose texts' vectors have at least this cosine."""

    embedder: Embedder
    least: float = 0.3

    def __call__(self, pairs: Sequence[Pair]) -> list[bool]:
        """See :data:`PairJudge`."""
        first, second = (self.embedder.encode([pair[side] for pair in pairs]) for side in (0, 1))
        return [bool(cosine >= self.least) for cosine in (first * second).sum(axis=1)]


@dataclass(frozen=True)
class EndpointJudge:
    """Ask a model behind an OpenAI-compatible endpoint for yes or no; its answers stay in the teacher's journal.

    Attributes:
        teacher: whose endpoint and journal are used. seed: random seed of the requests. question: with ``{first}`` and ``{second}``.
    """

    teacher: EndpointTeacher
    seed: int = 0
    question: str = QUESTION

    def __call__(self, pairs: Sequence[Pair]) -> list[bool]:
        """See :data:`PairJudge`; an answer without a clear yes or no rejects its pair, and a warning gives their number."""
        asked = [self.question.format(first=first, second=second) for first, second in pairs]
        replies = self.teacher.ask([[{"role": "user", "content": text}] for text in asked], 1, self.seed)
        said = [read_yes_or_no(reply.answer) for (reply,) in replies]
        if unclear := sum(answer is None for answer in said):
            log.warning(
                "%d of %d answers of the judge say neither yes nor no; their pairs are rejected.", unclear, len(said)
            )
        return [answer is True for answer in said]


def read_yes_or_no(answer: str) -> bool | None:
    """Return the yes or no at the answer's start, or the only one in it; None if it has neither or both."""
    words = re.findall(r"\w+", answer.lower())
    found = [word for word in words if word in ("yes", "no")]
    if not found or (len(set(found)) > 1 and words[0] not in ("yes", "no")):
        return None
    return found[0] == "yes"


def judged_pairs(first: Array, second: Array, texts: Sequence[str], judge: PairJudge) -> tuple[Array, Array]:
    """Return the pairs that a judge keeps, in their order.

    Args:
        first, second: (P,) item numbers. texts: texts of all items. judge: see :data:`PairJudge`.

    Raises:
        InputError: the judge's answers are not one per pair.
    """
    pairs = [(texts[a], texts[b]) for a, b in zip(first.tolist(), second.tolist())]
    kept = np.asarray(judge(pairs) if pairs else [], dtype=bool)
    if kept.shape != (len(pairs),):
        raise InputError(
            "A judge of pairs did not answer each pair.",
            where="judge",
            expected=f"{len(pairs)} answers",
            found=f"shape {kept.shape}",
        )
    if pairs:
        log.info("The judge rejected %.1f %% of %d pairs.", 100 * (1 - kept.mean()), len(pairs))
    return first[kept], second[kept]
