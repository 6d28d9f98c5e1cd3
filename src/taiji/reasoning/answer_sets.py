"""Read the intents, with weights, from answers that each list several intents.

The stage that writes features for a run and the service that refreshes them after new events both use this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from taiji.data.item_text import item_text
from taiji.language.causal_lm import LanguageModel
from taiji.language.generate import Written
from taiji.language.score import score_completions
from taiji.reasoning.answers import parse


@dataclass(frozen=True)
class SetAnswer:
    """Intents of all sampled answers to one prompt, in the order of the texts.

    Attributes:
        texts: intents, in the format of item texts (:func:`taiji.data.item_text.item_text`).
        levels: category levels of each intent.
        weights: weight of each intent, from 0 to 1.
    """

    texts: list[str]
    levels: list[list[str]]
    weights: list[float]


def set_answers(
    lm: LanguageModel, asked: Sequence[str], written: Sequence[Sequence[Written]], depth: int, most: int, batch: int
) -> list[SetAnswer]:
    """Read the intents of answers.

    Args:
        lm: the model that wrote the answers.
        asked: rendered prompts.
        written: sampled answers to each prompt.
        depth: number of category levels to read.
        most: largest number of intents per answer.
        batch: number of texts per forward pass.

    Returns:
        one :class:`SetAnswer` per prompt. If a prompt has one sample, the weight of an intent is the geometric mean of
        its token probabilities. If it has several samples, every intent has weight 1. Answers without a title have no
        intents.
    """
    said = []
    for row in written:
        answers = [parse(sample.text, depth, most) for sample in row]
        said.append([intent for answer in answers if answer.title for intent in answer.intents])
    weights: list[list[float]] = [[1.0] * len(intents) for intents in said]
    told = [row for row, intents in enumerate(said) if intents and len(written[row]) == 1]
    if told:
        texts = [written[row][0].text for row in told]
        for place, text in zip(told, score_completions(lm, [asked[row] for row in told], texts, batch)):
            logs = [text.span(intent.start, intent.end) for intent in said[place]]
            weights[place] = [float(np.exp(np.mean(values))) if len(values) else 0.0 for values in logs]
    return [
        SetAnswer([item_text((i.title, *i.levels)) for i in intents], [list(i.levels) for i in intents], weight)
        for intents, weight in zip(said, weights)
    ]
