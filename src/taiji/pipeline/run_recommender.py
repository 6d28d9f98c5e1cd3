"""Load and compose the fitted components of a run's recommender."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from taiji.cascade.assembly import item_vectors, make_cascade
from taiji.data.statistics import statistics_of
from taiji.features.other_run import StoredFeatures
from taiji.models.ranking.ranker import Ranker
from taiji.models.retrieval.retriever import CatalogueRetriever
from taiji.pipeline.run_rankers import load_trained, scoring_slates
from taiji.pipeline.stages.fusion_stage import load_fuser

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from taiji.cascade.cascade import Cascade
    from taiji.cascade.settings import RecommendSettings
    from taiji.config import Config
    from taiji.core.component import Fuser, Requests
    from taiji.data import Dataset
    from taiji.pipeline.engine import Context
    from taiji.world.world import World


@dataclass(frozen=True, eq=False)
class Components:
    """All components fitted by the stages, bound to the dataset of the run.

    Attributes:
        retrievers: retrievers by name, in the order of the configuration.
        ranker: candidate ranker, or None.
        vectors: item vectors (N, d), or None if re-ranking does not need them.
        fuser: fitted fusion, or None.
        features: features of another run, or None if the ranker reads none.
    """

    retrievers: Mapping[str, CatalogueRetriever]
    ranker: Ranker | None
    vectors: NDArray[Any] | None
    fuser: Fuser | None = None
    features: StoredFeatures | None = None

    def featured(self, requests: Requests) -> Requests:
        """Return the requests joined with their users' features at request time, if the ranker reads features."""
        return requests if self.features is None else self.features.joined_to(requests)

    def cascade(
        self, settings: RecommendSettings, dataset: Dataset, live: Dataset | None = None, names: Sequence[str] = ()
    ) -> Cascade:
        """Compose the components into a cascade.

        Args:
            settings: settings of the composition.
            dataset: dataset of the run.
            live: dataset with the same users and items but newer events.
            names: retrievers to compose without the ranker; empty for all components.
        """
        chosen = {name: model for name, model in self.retrievers.items() if not names or name in names}
        ranker = None if names else self.ranker
        if live is not None:
            chosen = {name: model.bound_to(live) for name, model in chosen.items()}
            ranker = None if ranker is None else ranker.bound_to(live, statistics_of(live))
        # A block of requests takes longer than one request, so it has no time limit.
        changes: dict[str, Any] = {"budget": settings.budget.unhurried()}
        if names:
            changes |= {"rerank": "none", "most_per_category": None}
        settings = settings.model_copy(update=changes)
        return make_cascade(settings, dataset, chosen, ranker, self.vectors, self.fuser)


def load_components(
    context: Context, dataset: Dataset, names: Sequence[str], ranked: bool, fitted: bool = False
) -> Components:
    """Load the fitted components of the stages.

    Raises:
        ConfigError: the ranker cannot rank candidates.
    """
    retrievers = {
        name: CatalogueRetriever.load(context.input(f"retriever-{name}") / "retriever", dataset) for name in names
    }
    ranker = None
    if ranked:
        ranker = scoring_slates(
            load_trained(context, "candidate_ranker", dataset), "another model, or recommend.rank: false"
        )
    vectors = (
        item_vectors(dataset, **context.config.embedder.model_dump(include={"name", "device"}))
        if context.config.recommend.rerank != "none"
        else None
    )
    fuser = load_fuser(context, dataset) if fitted else None
    features = StoredFeatures.load(context.input("candidate_ranker")) if ranked else None
    return Components(retrievers, ranker, vectors, fuser, features)


def world_of(config: Config) -> World | None:
    """Return the world that generated the log, in its initial state; None for any other source."""
    from taiji.data.sources import find_source
    from taiji.world.world_source import WorldSource

    source = find_source(config.data)
    return source.world(config.data, config.seed) if isinstance(source, WorldSource) else None
