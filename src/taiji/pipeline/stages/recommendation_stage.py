"""Stage `recommendation`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taiji.pipeline.amounts import Amount
from taiji.pipeline.composed_stage import ComposedStage
from taiji.pipeline.stages.ranker_without_stage import RankerWithout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taiji.config import Config
    from taiji.pipeline.amounts import Log
    from taiji.pipeline.engine import Context


class Recommendation(ComposedStage):
    """Stage that evaluates the recommender on the test period: recall after every step of the cascade, the final lists,
    and an ablation of each component."""

    name = "recommendation"
    summary = "Evaluate the recommender on the test period, in full and without each component."
    settings = ("recommend", "split", "evaluation", "embedder")
    publish = ("recommendation.json",)

    def __init__(
        self, retrievers: Sequence[str], ranked: bool, fitted: bool = False, without_fields: Sequence[str] = ()
    ) -> None:
        super().__init__(retrievers, ranked, fitted)
        self.without = {field: RankerWithout(field).key for field in without_fields}
        self.needs = (*self.needs, *self.without.values())

    def cost(self, config: Config, log: Log) -> Amount:
        """Return the number of ranked candidates in three passes: the whole cascade, all of its variants together, and
        the logged lists."""
        settings = config.recommend
        return Amount(min(settings.requests, log.users) * settings.budget.candidates * 3)

    def run(self, context: Context) -> dict[str, Any]:
        """Evaluate the recommender."""
        from taiji.cascade.evaluation import evaluate_recommender
        from taiji.cascade.requests import period_requests
        from taiji.core.artifacts import write_json
        from taiji.data import time_split
        from taiji.experiments.world_lists import WorldTruth
        from taiji.pipeline.run_data import load
        from taiji.pipeline.run_features import features_used
        from taiji.pipeline.run_rankers import load_trained, scoring_slates
        from taiji.pipeline.run_recommender import world_of
        from taiji.pipeline.traced_requests import off_policy_values, write_traces

        settings, dataset, seed = context.config.recommend, load(context), context.config.seed
        start, _ = time_split(dataset, context.config.split).interval("test")
        parts = self.components(context, dataset)
        new_only = settings.new_items_only
        if new_only is None:
            new_only = not any(retriever.keeps_seen for retriever in parts.retrievers.values())
        requests, targets = period_requests(
            dataset,
            start,
            settings.requests,
            seed,
            at=settings.request_at,
            horizon_days=settings.horizon_days,
            new_only=new_only,
        )
        requests = parts.featured(requests)
        world = world_of(context.config)
        truth = None if world is None else WorldTruth(world, dataset)
        evaluation = context.config.evaluation
        bootstrap: dict[str, Any] = {"resamples": evaluation.resamples, "level": evaluation.level, "seed": seed}
        found = evaluate_recommender(
            settings,
            dataset,
            parts.retrievers,
            parts.ranker,
            requests,
            targets,
            before=start,
            vectors=parts.vectors,
            fuser=parts.fuser,
            without_fields={
                field: scoring_slates(load_trained(context, stage, dataset), "another model")
                for field, stage in self.without.items()
            },
            further=None if truth is None else truth.of_lists(requests),
            **bootstrap,
        )
        traced = write_traces(context.folder, settings, dataset, parts, requests, targets, truth, seed)
        write_json(
            context.folder / "recommendation.json",
            {
                "data": dataset.name,
                "requests": len(requests),
                "targets": len(targets.items),
                "new_items_only": new_only,
                "length": settings.length,
                "level": evaluation.level,
                "retrievers": list(self.retrievers),  # the order matters for quotas
                "retrieval": found.retrieval,
                "lists": found.lists,
                "components": found.components,
                "slices": found.slices,
                "log": found.facts,
                "features": None if parts.features is None else features_used(parts.features, requests),
                "candidates": dict(found.candidates),
                "off_policy": off_policy_values(settings, dataset, parts, start, **bootstrap),
                "milliseconds": dict(found.milliseconds),
            },
        )
        return {"requests": len(requests), "targets": len(targets.items), "traced": traced}
