"""How much work each stage of a configuration has: calls, tokens, rows. Arithmetic on the settings and on what a log looks like.

The unit of a language-model stage is the *token-equivalent*: a token read counts 1, a token written :data:`WRITTEN` (it needs a
forward pass of its own), a token trained on 3 (a backward pass costs two forward passes). Other stages count rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from taiji.config import Config
from taiji.pipeline.names import MODELS

WRITTEN = 5.0
"""Token-equivalents of a written token: decoding reads all weights for a few rows at a time."""
TRAINED = 3.0
"""Token-equivalents of a token that is trained on."""


@dataclass(frozen=True)
class Log:
    """What a log and the texts about it look like.

    Attributes:
        users: in the user table.
        events_per_user: rows of the log, exposures and history.
        exposures_per_user: exposures of each period (reward, llm, ranker, test).
        items: in the catalogue.
        feature_rows_per_user: feature rows of a user whom features are made for.
        student_tokens: of a student's prompt under the planned settings.
        teacher_tokens: of a teacher's prompt.
        rationale_tokens: of a written rationale.
        answer_tokens: of a completion of the student, rationale and answer.
        target_tokens: of a true answer.
        kept_share: share of the judged rationales that selection keeps.
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


@dataclass(frozen=True)
class Amount:
    """A stage's work.

    Attributes:
        rows: prompts, exposures or events: what the stage goes through.
        read: tokens read by the language model.
        written: tokens it writes.
        trained: tokens it is trained on.
        pairs: comparisons of the look-alike search.
        language: whether the language model does the work (and a GPU can).
        spread: whether the stage's partitions can be spread over workers.
    """

    rows: float
    read: float = 0.0
    written: float = 0.0
    trained: float = 0.0
    pairs: float = 0.0
    language: bool = False
    spread: bool = False

    @property
    def units(self) -> float:
        """What measured seconds are proportional to."""
        return self.read + WRITTEN * self.written + TRAINED * self.trained if self.language else self.rows


def workload(config: Config, log: Log) -> dict[str, Amount]:
    """Each stage's amount.

    A role has at most one prompt a user and period (``examples.per_user``), so sizes beyond the users are cut to them.
    """
    size, reasoning, k = config.size, config.reasoning, config.reasoning.teacher.rationales
    prompts = size.rationale_prompts + size.calibration_prompts + size.alignment_prompts
    share = min(1.0, log.users * (config.examples.per_user or math.inf) / prompts)
    taught, kept = (
        (size.rationale_prompts + size.calibration_prompts) * share,
        size.rationale_prompts * share * k * log.kept_share,
    )
    aligned = size.alignment_prompts * share
    if config.alignment.steps:
        aligned = config.alignment.steps * config.alignment.prompts_per_step
    test = min(size.test_prompts, log.users)
    featured = min(size.feature_users or log.users, log.users)
    refreshed = featured * log.feature_rows_per_user
    events, (reward, _, ranker, shown) = (
        log.users * log.events_per_user,
        (log.users * n for n in log.exposures_per_user),
    )
    said = log.rationale_tokens + log.target_tokens
    writer, endpoint = reasoning.teacher.kind == "writer", reasoning.teacher.kind == "endpoint"
    rollouts = aligned * config.alignment.generations
    audit = reasoning.audit
    audited, blind = (
        min(audit.controls, size.rationale_prompts * share),
        min(audit.blind, size.rationale_prompts * share),
    )
    share_featured = featured / log.users
    return {
        "data": Amount(events),
        "examples": Amount(events, spread=True),
        "reward": Amount(_trained(reward, config)),
        "rationales": Amount(
            taught,
            0 if writer else taught * log.teacher_tokens,
            0 if writer else taught * k * log.rationale_tokens,
            language=not writer,
            spread=not endpoint,
        ),
        # The whole rationale, the redacted one and none, after one prompt that is computed once.
        "selection": Amount(
            taught * k, taught * (log.student_tokens + 2 * k * said + log.target_tokens), language=True, spread=True
        ),
        # A sample scored beside decoys and controls, and some rationales written without the answer.
        "audit": Amount(
            audited,
            audited * (log.student_tokens + 2 * (2 + audit.decoys) * said) + blind * log.student_tokens,
            blind * log.rationale_tokens,
            language=True,
        ),
        "sft": Amount(kept, trained=kept * reasoning.sft.epochs * (log.student_tokens + said), language=True),
        "environment": Amount(aligned),
        "alignment": Amount(
            rollouts,
            0,
            rollouts * log.answer_tokens,
            aligned * (log.student_tokens + config.alignment.generations * log.answer_tokens),
            language=True,
        ),
        "judge": Amount(_trained(ranker, config)),
        "answers": Amount(
            len(MODELS) * test,
            len(MODELS) * test * log.student_tokens,
            len(MODELS) * test * log.answer_tokens,
            language=True,
            spread=True,
        ),
        "features": Amount(
            refreshed,
            refreshed * log.student_tokens,
            refreshed * log.answer_tokens,
            pairs=refreshed * featured,
            language=True,
            spread=True,
        ),
        "ranking": Amount(2 * _trained(ranker, config) + 3 * shown * share_featured),
        "report": Amount(len(MODELS) * test + shown * share_featured),
    }


def _trained(exposures: float, config: Config) -> float:
    """Rows a ranker is trained on, all passes together."""
    ranking = config.ranking
    return exposures * ranking.passes(exposures)
