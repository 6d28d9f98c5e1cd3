"""The loop: every stage with what it reads. The work's modules are imported when a stage runs."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Any

from taiji.config import Config
from taiji.data.sources.source import file_state
from taiji.pipeline.engine import Context, Stage

LANGUAGE = ("language", "reasoning.prompts", "size.chunk")
TITLES = "reasoning.prompts.title_characters"
PROMPTS = tuple(f"size.{role}_prompts" for role in ("rationale", "calibration", "alignment", "test"))


def _stage(name: str, module: str, needs: tuple[str, ...], settings: tuple[str, ...], **more: Any) -> Stage:
    def work(context: Context) -> dict[str, Any]:
        return getattr(import_module(f"taiji.pipeline.{module}"), name)(context)  # type: ignore[no-any-return]

    return Stage(name, work, needs, settings, **more)


def _source_state(config: Config) -> Any:
    return import_module("taiji.pipeline.prepare").source_state(config)


def _named_files(*keys: str) -> Callable[[Config], Any]:
    """The state of the files and folders that these settings name, where they name any: a template that was edited counts."""

    def state(config: Config) -> Any:
        values: list[str | Path | None] = [attrgetter(key)(config) for key in keys]
        files = [Path(value).expanduser() for value in values if value]
        return file_state(files)

    return state


FILES = _named_files("language.model", "reasoning.prompts.templates")
PREPARED = ("data", "examples")
STAGES = (
    _stage("data", "prepare", (), ("data",), outside=_source_state),
    _stage("examples", "prepare", ("data",), ("split", "examples", *PROMPTS)),
    _stage("reward", "rank", PREPARED, ("ranking", "own_ranker.reward"), outside=_named_files("own_ranker.reward")),
    _stage("rationales", "teach", PREPARED, (*LANGUAGE, "reasoning.teacher", "reasoning.endpoint"), outside=FILES),
    _stage("selection", "teach", (*PREPARED, "rationales"), (*LANGUAGE, "reasoning.selection"), outside=FILES),
    _stage(
        "audit",
        "audit_stage",
        (*PREPARED, "selection"),
        (*LANGUAGE, "reasoning.selection", "reasoning.audit"),
        outside=FILES,
        publish=("audit.json",),
    ),
    _stage("sft", "teach", (*PREPARED, "rationales", "selection"), (*LANGUAGE, "reasoning.sft"), outside=FILES),
    _stage(
        "environment",
        "align",
        (*PREPARED, "reward"),
        ("alignment.environment", "embedder", TITLES, "own_ranker.reward", "own_ranker.external"),
        outside=_named_files("own_ranker.reward"),
    ),
    _stage(
        "alignment",
        "align",
        (*PREPARED, "sft", "environment"),
        ("alignment", "embedder", *LANGUAGE),
        outside=_named_files("reasoning.prompts.templates"),
    ),
    _stage("judge", "rank", PREPARED, ("ranking",)),
    _stage("answers", "feature", (*PREPARED, "sft", "alignment"), ("generation", *LANGUAGE), outside=FILES),
    _stage(
        "features",
        "feature",
        (*PREPARED, "alignment"),
        ("generation", "embedder", "features", "examples", "size.feature_users", "size.feature_refreshes", *LANGUAGE),
        outside=_named_files("reasoning.prompts.templates"),
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
        outside=_named_files("reasoning.prompts.templates", "own_ranker.judge"),
        publish=("report.html", "metrics.json", "model_card.md", "data_card.md"),
    ),
)
