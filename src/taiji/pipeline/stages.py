"""The loop: every stage with what it reads. The work's modules are imported when a stage runs."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from taiji.config import Config
from taiji.pipeline.engine import Context, Stage

LANGUAGE = ("language", "reasoning.prompts", "size.chunk")
PROMPTS = tuple(f"size.{role}_prompts" for role in ("rationale", "calibration", "alignment", "test"))


def _stage(name: str, module: str, needs: tuple[str, ...], settings: tuple[str, ...], **more: Any) -> Stage:
    def work(context: Context) -> dict[str, Any]:
        return getattr(import_module(f"taiji.pipeline.{module}"), name)(context)  # type: ignore[no-any-return]

    return Stage(name, work, needs, settings, **more)


def _source_state(config: Config) -> Any:
    return import_module("taiji.pipeline.prepare").source_state(config)


PREPARED = ("data", "examples")
STAGES = (
    _stage("data", "prepare", (), ("data",), outside=_source_state),
    _stage("examples", "prepare", ("data",), ("split", "examples", *PROMPTS)),
    _stage("reward", "rank", PREPARED, ("ranking", "own_ranker")),
    _stage("rationales", "teach", PREPARED, (*LANGUAGE, "reasoning.teacher", "reasoning.endpoint")),
    _stage("selection", "teach", (*PREPARED, "rationales"), (*LANGUAGE, "reasoning.selection")),
    _stage(
        "audit",
        "review",
        (*PREPARED, "selection"),
        (*LANGUAGE, "reasoning.selection", "reasoning.audit"),
        publish=("audit.json",),
    ),
    _stage("sft", "teach", (*PREPARED, "rationales", "selection"), (*LANGUAGE, "reasoning.sft")),
    _stage("environment", "align", (*PREPARED, "reward"), ("alignment", "embedder", "reasoning.prompts", "own_ranker")),
    _stage("alignment", "align", (*PREPARED, "sft", "environment"), ("alignment", "embedder", *LANGUAGE)),
    _stage("judge", "rank", PREPARED, ("ranking",)),
    _stage("answers", "feature", (*PREPARED, "sft", "alignment"), ("generation", *LANGUAGE)),
    _stage(
        "features",
        "feature",
        (*PREPARED, "alignment"),
        ("generation", "embedder", "features", "examples", "size.feature_users", "size.feature_refreshes", *LANGUAGE),
    ),
    _stage("ranking", "rank", (*PREPARED, "judge", "features"), ("ranking", "features")),
    _stage(
        "report",
        "reporting",
        (*PREPARED, "rationales", "selection", "audit", "alignment", "judge", "answers", "features", "ranking"),
        (
            "evaluation",
            "embedder",
            "examples",
            "reasoning.prompts",
            "reasoning.teacher",
            "reasoning.selection",
            "reasoning.sft",
            "alignment",
            "own_ranker",
        ),
        publish=("report.html", "metrics.json", "model_card.md", "data_card.md"),
    ),
)
