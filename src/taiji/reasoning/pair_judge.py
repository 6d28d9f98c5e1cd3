"""Pair judges: decide whether two items are related, by shared words, embeddings, a model behind an endpoint, or any
function.

A judge sees only the texts of the items. Pairs come from the training log, so no test interaction reaches a judge.
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
"""Function from pairs of item texts to one bool per pair: True if the two items are related."""
QUESTION = (
    "Two items of a catalogue:\n1. {first}\n2. {second}\n"
    "Would somebody who took the first be likely to want the second, too? Begin the answer with yes or no."
)
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SharedWords:
    """Judge that keeps pairs whose texts have at least ``least`` words in common."""

    least: int = 1

    def __call__(self, pairs: Sequence[Pair]) -> list[bool]:
        """See :data:`PairJudge`."""
        return [len(set(words(a)) & set(words(b))) >= self.least for a, b in pairs]


@dataclass(frozen=True)
class Cosine:
    """Judge that keeps pairs whose text embeddings have a cosine similarity of at least ``least``."""

    embedder: Embedder
    least: float = 0.3

    def __call__(self, pairs: Sequence[Pair]) -> list[bool]:
        """See :data:`PairJudge`."""
        first, second = (self.embedder.encode([pair[side] for pair in pairs]) for side in (0, 1))
        return [bool(cosine >= self.least) for cosine in (first * second).sum(axis=1)]


@dataclass(frozen=True)
class EndpointJudge:
    """Judge that asks a model behind an OpenAI-compatible endpoint for yes or no. The answers are stored in the
    teacher's journal.

    Attributes:
        teacher: teacher whose endpoint and journal are used.
        seed: random seed of the requests.
        question: text of the question, with ``{first}`` and ``{second}``.
    """

    teacher: EndpointTeacher
    seed: int = 0
    question: str = QUESTION

    def __call__(self, pairs: Sequence[Pair]) -> list[bool]:
        """See :data:`PairJudge`. A pair without a clear yes or no is rejected, and a warning gives the number of such
        pairs."""
        asked = [self.question.format(first=first, second=second) for first, second in pairs]
        replies = self.teacher.ask([[{"role": "user", "content": text}] for text in asked], 1, self.seed)
        said = [read_yes_or_no(reply.answer) for (reply,) in replies]
        if unclear := sum(answer is None for answer in said):
            log.warning(
                "%d of %d answers of the judge are neither yes nor no; their pairs are rejected.", unclear, len(said)
            )
        return [answer is True for answer in said]


def read_yes_or_no(answer: str) -> bool | None:
    """Return True for yes, False for no, and None for an unclear answer.

    If the first word is yes or no, it decides. Otherwise the answer must contain only one of the two words.
    """
    words = re.findall(r"\w+", answer.lower())
    found = [word for word in words if word in ("yes", "no")]
    if not found or (len(set(found)) > 1 and words[0] not in ("yes", "no")):
        return None
    return found[0] == "yes"


def judged_pairs(first: Array, second: Array, texts: Sequence[str], judge: PairJudge) -> tuple[Array, Array]:
    """Return the pairs that a judge keeps, in the given order.

    Args:
        first, second: (P,) dense item ids.
        texts: texts of all items.
        judge: see :data:`PairJudge`.

    Raises:
        InputError: the judge did not return one answer per pair.
    """
    pairs = [(texts[a], texts[b]) for a, b in zip(first.tolist(), second.tolist())]
    kept = np.asarray(judge(pairs) if pairs else [], dtype=bool)
    if kept.shape != (len(pairs),):
        raise InputError(
            "The pair judge did not return one answer per pair.",
            where="judge",
            expected=f"{len(pairs)} answers",
            found=f"shape {kept.shape}",
        )
    if pairs:
        log.info("The judge rejected %.1f%% of %d pairs.", 100 * (1 - kept.mean()), len(pairs))
    return first[kept], second[kept]
