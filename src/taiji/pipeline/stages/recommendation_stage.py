"""Stage `recommendation`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from taiji.pipeline.amounts import Amount
from taiji.pipeline.stage import Stage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from taiji.config import Config
    from taiji.data import Dataset
    from taiji.pipeline.amounts import Log
    from taiji.pipeline.engine import Context


class Recommendation(Stage):
    """The request path evaluated on the test period: recall behind every step, the list, each component taken away.

    Args:
        retrievers: names of those that were fitted. ranked: whether there is a ranker of candidates. fitted: whether there is
            a fitted fusion.
    """

    name = "recommendation"
    summary = "Evaluate the recommender on the test period, whole and without each component."
    settings = ("recommend", "split", "evaluation", "embedder")
    publish = ("recommendation.json",)

    def __init__(self, retrievers: Sequence[str], ranked: bool, fitted: bool = False) -> None:
        self.retrievers, self.ranked, self.fitted = tuple(retrievers), ranked, fitted
        self.needs = (
            "data",
            *(f"retriever-{name}" for name in retrievers),
            *(("candidate_ranker",) * ranked),
            *(("fusion",) * fitted),
        )

    def cost(self, config: Config, log: Log) -> Amount:
        """Return the candidates ranked."""
        settings = config.recommend
        variants = len(self.retrievers) + 2
        return Amount(min(settings.requests, log.users) * settings.budget.candidates * variants)

    def run(self, context: Context) -> dict[str, Any]:
        """Evaluate."""
        from taiji.cascade.evaluation import evaluate_recommender
        from taiji.cascade.requests import period_requests
        from taiji.core.artifacts import write_json
        from taiji.core.errors import ConfigError
        from taiji.data import time_split
        from taiji.models.ranking.ranker import Ranker
        from taiji.models.retrieval.retriever import CatalogueRetriever
        from taiji.pipeline.run_data import load
        from taiji.pipeline.run_rankers import load_trained
        from taiji.pipeline.stages.fusion_stage import load_fuser

        settings, dataset = context.config.recommend, load(context)
        start, _ = time_split(dataset, context.config.split).interval("test")
        retrievers = {
            name: CatalogueRetriever.load(context.input(f"retriever-{name}") / "retriever", dataset)
            for name in self.retrievers
        }
        ranker = load_trained(context, "candidate_ranker", dataset) if self.ranked else None
        if ranker is not None and not isinstance(ranker, Ranker):
            raise ConfigError(
                "A ranking model that does not score slates cannot rank candidates.",
                where="ranking.model",
                expected="a subclass of taiji.models.ranking.ranker.Ranker",
                found=type(ranker).__name__,
                fix="choose another model, or recommend.rank: false",
            )
        new_only = settings.new_items_only
        if new_only is None:
            new_only = not any(retriever.keeps_seen for retriever in retrievers.values())
        requests, targets = period_requests(
            dataset,
            start,
            settings.requests,
            context.config.seed,
            at=settings.request_at,
            horizon_days=settings.horizon_days,
            new_only=new_only,
        )
        vectors = item_vectors(context, dataset) if settings.rerank != "none" else None
        found = evaluate_recommender(
            settings,
            dataset,
            retrievers,
            ranker,
            requests,
            targets,
            before=start,
            vectors=vectors,
            fuser=load_fuser(context, dataset) if self.fitted else None,
            seed=context.config.seed,
        )
        write_json(
            context.folder / "recommendation.json",
            {
                "data": dataset.name,
                "requests": len(requests),
                "targets": len(targets.items),
                "new_items_only": new_only,
                "length": settings.length,
                "retrievers": list(self.retrievers),  # in their order, which quotas depend on
                "retrieval": found.retrieval,
                "lists": found.lists,
                "milliseconds": dict(found.milliseconds),
            },
        )
        return {"requests": len(requests), "targets": len(targets.items)}


def item_vectors(context: Context, dataset: Dataset) -> NDArray[Any]:
    """Return the text vectors (N, d) of all items."""
    from taiji.language.embed import load_embedder
    from taiji.reasoning.prompts import item_lines

    settings = context.config.embedder
    return load_embedder(settings.name, settings.device).encode(item_lines(dataset))
