"""Recipes, which are lists of stages that a configuration can extend with stages of other packages. This module has no
heavy imports."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING

from taiji.core.errors import ConfigError
from taiji.pipeline.stage import Stage
from taiji.pipeline.stages.alignment_stage import Alignment
from taiji.pipeline.stages.answers_stage import Answers
from taiji.pipeline.stages.audit_stage import Audit
from taiji.pipeline.stages.data_stage import Data
from taiji.pipeline.stages.evaluation_ranker_stage import EvaluationRanker
from taiji.pipeline.stages.examples_stage import Examples
from taiji.pipeline.stages.features_stage import Features
from taiji.pipeline.stages.ladder_stage import Ladder
from taiji.pipeline.stages.ranking_stage import Ranking
from taiji.pipeline.stages.rationales_stage import Rationales
from taiji.pipeline.stages.report_stage import Report
from taiji.pipeline.stages.reward_stage import Reward
from taiji.pipeline.stages.reward_table_stage import RewardTable
from taiji.pipeline.stages.selection_stage import Selection
from taiji.pipeline.stages.sft_stage import SFT

if TYPE_CHECKING:
    from taiji.config import Config

ENHANCE: tuple[Stage, ...] = (
    Data(),
    Examples(),
    Ladder(),
    Reward(),
    Rationales(),
    Selection(),
    Audit(),
    SFT(),
    RewardTable(),
    Alignment(),
    EvaluationRanker(),
    Answers(),
    Features(),
    Ranking(),
    Report(),
)
"""Recipe from logs to a report, in which a language model adds features to a ranker."""
STAGE_NAMES = {stage.name: stage.summary for stage in ENHANCE}
"""Name and summary of each stage of :data:`ENHANCE`."""


RUN_FILES = ("config.json",)
"""Files of a run directory that no stage writes."""


def stages_of(config: Config) -> tuple[Stage, ...]:
    """Return the stages of a configuration: those of the recipe, and those named in ``stages``, placed after their
    needs.

    Raises:
        ConfigError: a reference does not name a stage, or a required stage is missing.
    """
    return _with_feeds(extended(ENHANCE, [_made(reference) for reference in config.stages]), config)


def _with_feeds(stages: Sequence[Stage], config: Config) -> tuple[Stage, ...]:
    """Return the stages, each of which also needs the stages that feed it (:meth:`Stage.feeds`)."""
    feeding = {key: [stage.key for stage in stages if key in stage.feeds(config)] for key in (s.key for s in stages)}
    made = []
    for stage in stages:
        if feeding[stage.key]:
            stage = copy(stage)
            stage.needs = (*stage.needs, *feeding[stage.key])
        made.append(stage)
    return tuple(made)


def extended(recipe: Sequence[Stage], more: Sequence[Stage]) -> tuple[Stage, ...]:
    """Return a recipe extended with further stages, each placed directly after the last stage that it needs.

    Raises:
        ConfigError: a name is repeated, the name of a published file is invalid, a need is unknown, or needs form a
            cycle.
    """
    placed, waiting = list(recipe), list(more)
    for stage in waiting:
        wrong = [name for name in stage.publish if name != Path(name).name or name in (*RUN_FILES, "", ".", "..")]
        if wrong:
            raise ConfigError(
                "The name of a published file is invalid.",
                where=f"stage {stage.key}",
                expected=f"names of files, not paths, and not {', '.join(RUN_FILES)}",
                found=", ".join(map(repr, wrong)),
            )
    for number, stage in enumerate(waiting):
        if stage.key in {other.key for other in (*placed, *waiting[:number])}:
            raise ConfigError(
                "Two stages have the same name.", where="stages", found=stage.key, fix="rename the stage that you add"
            )
    while waiting:
        keys = [stage.key for stage in placed]
        ready = [stage for stage in waiting if all(need in keys for need in stage.needs)]
        if not ready:
            missing = {f"{s.key} needs {need}" for s in waiting for need in s.needs if need not in keys}
            raise ConfigError(
                "A stage needs a stage that does not run before it.",
                where="stages",
                expected=f"needs among {', '.join(keys)}",
                found="; ".join(sorted(missing)),
                fix="correct the `needs` of the stage, or also name the required stage under `stages`",
            )
        waiting.remove(ready[0])
        placed.insert(max((keys.index(need) for need in ready[0].needs), default=-1) + 1, ready[0])
    return tuple(placed)


def _made(reference: str) -> Stage:
    from taiji.config import STAGE_GROUP
    from taiji.core.component import as_subclass, find_class

    found = find_class(reference, STAGE_GROUP, "stages")
    return as_subclass(found, Stage, "a stage", f"stages: {reference}")()  # type: ignore[type-abstract]
