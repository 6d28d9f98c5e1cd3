"""Estimate amounts of work (calls, tokens, rows) from settings and statistics of the log, without heavy imports.

The unit of a language-model stage is the *token-equivalent*. A token that is read counts 1, a token that is written
counts :data:`WRITTEN` (it requires a separate forward pass), and a token that is trained on counts :data:`TRAINED` (a
forward pass, and a backward pass that costs as much as two). The unit of other stages is the row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from taiji.config import Config

WRITTEN = 5.0
"""Token-equivalents of a written token. It costs more than a token that is read, because decoding reads all weights for
only a few rows at a time."""
TRAINED = 3.0
"""Token-equivalents of a token that is trained on."""


@dataclass(frozen=True)
class Log:
    """Statistics of a log and of its texts.

    Attributes:
        users: number of users in the table of users.
        events_per_user: rows of the log (exposures and history) per user.
        exposures_per_user: exposures per user in each period (reward, llm, ranker, test).
        items: number of items in the catalogue.
        feature_rows_per_user: feature rows per user with features.
        student_tokens: tokens per student prompt under the planned settings.
        teacher_tokens: tokens per teacher prompt.
        rationale_tokens: tokens per generated rationale.
        answer_tokens: tokens per completion of the student, which consists of a rationale and an answer.
        target_tokens: tokens per true answer.
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
        """Return the number of exposures in a period: 0 reward, 1 llm, 2 ranker, 3 test."""
        return self.users * self.exposures_per_user[period]

    @property
    def said_tokens(self) -> float:
        """Number of tokens of a rationale and a true answer."""
        return self.rationale_tokens + self.target_tokens


@dataclass(frozen=True)
class Amount:
    """Amount of work of a stage.

    Attributes:
        rows: prompts, exposures or events processed by the stage.
        read: tokens read by the language model.
        written: tokens that the model writes.
        trained: tokens on which the model is trained.
        pairs: comparisons of the look-alike search.
        language: True if a language model does the work, possibly on a GPU.
        teacher: True if that model is the teacher.
        spread: True if the stage's partitions can be spread over workers.
        models: number of models that the stage stores in float32.
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
        """Amount to which the measured seconds are proportional."""
        return self.read + WRITTEN * self.written + TRAINED * self.trained if self.language else self.rows


def prompt_share(config: Config, log: Log) -> float:
    """Return the fraction of the prompts requested for the LLM period that the log can provide.

    Each user gives at most ``examples.per_user`` prompts, all for one role (rationale, calibration or alignment).
    """
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
    """Return the number of rows on which a ranker is trained over all epochs. A model without a setting for epochs has
    one epoch."""
    from taiji.models.ranking.settings import NeuralRankerSettings

    ranking = config.ranking
    return exposures * (ranking.passes(exposures) if isinstance(ranking, NeuralRankerSettings) else 1)
