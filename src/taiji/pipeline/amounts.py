"""Amounts of work: calls, tokens, rows. Arithmetic on settings and log statistics, without heavy imports.

The unit of a language-model stage is the *token-equivalent*: a token read counts 1, a token written :data:`WRITTEN`
(it needs a separate forward pass), a trained token 3 (a backward pass costs two forward passes). Other stages count
rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from taiji.config import Config

WRITTEN = 5.0
"""Token-equivalents of a written token: decoding reads all weights for a few rows at a time."""
TRAINED = 3.0
"""Token-equivalents of a token that is trained on."""


@dataclass(frozen=True)
class Log:
    """Statistics of a log and of its texts.

    Attributes:
        users: number of users in the user table.
        events_per_user: rows of the log, exposures and history.
        exposures_per_user: exposures of each period (reward, llm, ranker, test).
        items: number of items in the catalogue.
        feature_rows_per_user: feature rows of each user with features.
        student_tokens: tokens of a student's prompt under the planned settings.
        teacher_tokens: tokens of a teacher's prompt.
        rationale_tokens: tokens of a generated rationale.
        answer_tokens: tokens of a student's completion, rationale and answer.
        target_tokens: tokens of a true answer.
        kept_share: share of the scored rationales that selection keeps.
    """

    users: float
    events_per_user: float
    exposures_per_user: tuple[float, float, float, float]
    items: float
    feature_rows_per_user: float
    student_tokens: float
    teacher_tokens: float
    rationale_tokens: float
    answer_tokens: float
    target_tokens: float
    kept_share: float

    @property
    def events(self) -> float:
        """Number of rows of the log."""
        return self.users * self.events_per_user

    def exposures(self, period: int) -> float:
        """Return the exposures of a period, counted from 0."""
        return self.users * self.exposures_per_user[period]

    @property
    def said_tokens(self) -> float:
        """Number of tokens of a rationale and a true answer."""
        return self.rationale_tokens + self.target_tokens


@dataclass(frozen=True)
class Amount:
    """A stage's work.

    Attributes:
        rows: prompts, exposures or events processed by the stage.
        read: tokens read by the language model.
        written: tokens written by it.
        trained: tokens used for its training.
        pairs: comparisons of the look-alike search.
        language: True if the language model does the work (and a GPU can).
        teacher: True if that model is the teacher.
        spread: True if the stage's partitions can be spread over workers.
        models: number of float32 models that the stage stores.
    """

    rows: float
    read: float = 0.0
    written: float = 0.0
    trained: float = 0.0
    pairs: float = 0.0
    language: bool = False
    teacher: bool = False
    spread: bool = False
    models: int = 0

    @property
    def units(self) -> float:
        """Number that measured seconds are proportional to."""
        return self.read + WRITTEN * self.written + TRAINED * self.trained if self.language else self.rows


def prompt_share(config: Config, log: Log) -> float:
    """Return the share of the wanted prompts for which there are enough users: a role gets at most
    ``examples.per_user`` per user and period."""
    size = config.size
    prompts = size.rationale_prompts + size.calibration_prompts + size.alignment_prompts
    return min(1.0, log.users * (config.examples.per_user or math.inf) / prompts)


def taught_prompts(config: Config, log: Log) -> float:
    """Return the number of prompts that the teacher answers."""
    return (config.size.rationale_prompts + config.size.calibration_prompts) * prompt_share(config, log)


def aligned_prompts(config: Config, log: Log) -> float:
    """Return the number of alignment prompts, counting repetitions."""
    if config.alignment.steps:
        return config.alignment.steps * config.alignment.prompts_per_step
    return config.size.alignment_prompts * prompt_share(config, log)


def tested_prompts(config: Config, log: Log) -> float:
    """Return the number of prompts in the test period."""
    return min(config.size.test_prompts, log.users)


def featured_users(config: Config, log: Log) -> float:
    """Return the number of users who get features."""
    return min(config.size.feature_users or log.users, log.users)


def trained_rows(exposures: float, config: Config) -> float:
    """Return the rows a ranker is trained on over all epochs; a model without a setting for epochs counts as one
    epoch."""
    from taiji.models.ranking.settings import NeuralRankerSettings

    ranking = config.ranking
    return exposures * (ranking.passes(exposures) if isinstance(ranking, NeuralRankerSettings) else 1)
