"""Stage `recommend_report`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taiji.pipeline.stage import Stage

if TYPE_CHECKING:
    from taiji.pipeline.engine import Context


class RecommendReport(Stage):
    """Stage that writes the report page of a recommender.

    Args:
        fitted: keys of the stages that fit a component.
        looped: True if there is a closed loop.
    """

    name = "recommend_report"
    summary = "Write the report of the recommender."
    publish = ("recommendation.html",)

    def __init__(self, fitted: tuple[str, ...], looped: bool) -> None:
        self.fitted, self.looped = fitted, looped
        self.needs = (*fitted, "recommendation", *(("closed_loop",) * looped))

    def run(self, context: Context) -> dict[str, Any]:
        """Write the report."""
        from taiji.core.artifacts import read_json
        from taiji.core.manifests import read_manifest
        from taiji.reporting.recommendation_page import write_recommendation

        found = read_json(context.input("recommendation") / "recommendation.json")
        loop = read_json(context.input("closed_loop") / "closed_loop.json") if self.looped else None
        seconds = {stage: float(read_manifest(context.input(stage))["seconds"]) for stage in self.fitted}
        configuration = context.config.model_dump(mode="json")
        write_recommendation(
            context.folder / "recommendation.html", context.run.resolve().name, found, loop, seconds, configuration
        )
        return {}
