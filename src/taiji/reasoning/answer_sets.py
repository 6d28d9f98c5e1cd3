"""Weighted intents of answers that are sets, for the batch stage and the near-online writer."""

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
    """Intents of one prompt's answer or answers, in the order of the text.

    Attributes:
        texts: in the form of item texts. levels: category levels of each. weights: positive.
    """

    texts: list[str]
    levels: list[list[str]]
    weights: list[float]


def set_answers(
    lm: LanguageModel, asked: Sequence[str], written: Sequence[Sequence[Written]], depth: int, most: int, batch: int
) -> list[SetAnswer]:
    """Read the intents of answers.

    Args:
        lm: the model that wrote them. asked: rendered prompts. written: samples of each. depth: category levels. most: upper limit of intents per
            answer.
        batch: texts scored together.

    Returns:
        one per prompt. A weight is the sequence probability (geometric mean over an intent's tokens) of one answer, or 1 for each of several.
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
