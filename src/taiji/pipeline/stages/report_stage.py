"""Stage `report`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taiji.core.file_state import State, named_files
from taiji.pipeline.amounts import Amount, featured_users, tested_prompts
from taiji.pipeline.names import MODELS
from taiji.pipeline.stage import PREPARED_STAGES, Stage

if TYPE_CHECKING:
    from taiji.config import Config
    from taiji.pipeline.amounts import Log
    from taiji.pipeline.engine import Context


class Report(Stage):
    """Stage that computes all metrics with intervals, and writes `metrics.json`, `report.html` and the cards."""

    name = "report"
    summary = "Compute all metrics with intervals and baselines, and write the report."
    needs = (
        *PREPARED_STAGES,
        "ladder",
        "rationales",
        "selection",
        "audit",
        "alignment",
        "evaluation_ranker",
        "answers",
        "features",
        "ranking",
    )
    settings = (
        "evaluation",
        "embedder",
        "examples",
        "reasoning.prompts",
        "reasoning.teacher",
        "reasoning.selection",
        "reasoning.sft",
        "alignment",
        "own_ranker",
    )
    publish = ("report.html", "metrics.json", "model_card.md", "data_card.md")

    def outside(self, config: Config) -> State:
        """Return the state of the prompt templates, of the files of ``own_ranker.evaluation``, and of the embedder if
        it is a folder."""
        return named_files(config.reasoning.prompts.templates, config.own_ranker.evaluation, config.embedder.name)

    def cost(self, config: Config, log: Log) -> Amount:
        """Return the number of evaluated answers plus the number of test exposures of users with features."""
        shown = log.exposures(3) * featured_users(config, log) / log.users
        return Amount(len(MODELS) * tested_prompts(config, log) + shown)

    def run(self, context: Context) -> dict[str, Any]:
        """Compute the metrics and write the report."""
        from taiji.pipeline.run_report import write_run_report

        return write_run_report(context)
