"""From settings to the components of a cascade."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from taiji.cascade.cascade import Cascade, Merge, Ranking
from taiji.cascade.merging import FilledQuotas, FusedRanks
from taiji.cascade.settings import RecommendSettings
from taiji.core.component import Fuser, Reranker, Retriever, Scorer
from taiji.core.errors import ConfigError
from taiji.core.settings import problem_text
from taiji.data.dataset import Dataset
from taiji.models.fusion.weighted import LinearFusion, LogLinearFusion, RankAverage
from taiji.models.rerank.diversity import DPP, MMR, Caps
from taiji.models.retrieval.retriever import CatalogueRetriever, retriever_class

Array = NDArray[Any]
OWN_KEYS = ("model", "weight", "quota")
"""Keys of a retriever's section that are not its model's settings."""
FUSERS: Mapping[str, Callable[[Mapping[str, float]], Fuser]] = {
    "linear": LinearFusion,
    "log_linear": LogLinearFusion,
    "rank_average": RankAverage,
}


def make_retriever(name: str, values: Mapping[str, Any]) -> CatalogueRetriever:
    """Return the retriever, not yet fitted, that a section of ``recommend.retrievers`` describes.

    Raises:
        ConfigError: no model, an unknown one, or settings that it does not have.
    """
    where = f"recommend.retrievers.{name}"
    if "model" not in values:
        raise ConfigError(
            "A retriever has no model.", where=where, expected="model: popularity, or another", found=str(dict(values))
        )
    kind = retriever_class(str(values["model"]), f"{where}.model")
    try:
        settings = kind.Settings.model_validate({key: v for key, v in values.items() if key not in OWN_KEYS})
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, p['loc']))} {problem_text(p)}" for p in error.errors(include_url=False)]
        raise ConfigError(
            "The settings of a retriever are not right.",
            where=where,
            expected=", ".join(kind.Settings.model_fields),
            found="; ".join(problems),
        ) from error
    return kind(settings)


def make_merge(settings: RecommendSettings, names: Sequence[str]) -> Merge:
    """Return the merge of the retrievers of these names."""
    sections = settings.retrievers
    if settings.merge == "rank_fusion":
        return FusedRanks(tuple(names), {name: float(sections[name].get("weight", 1.0)) for name in names})
    share = max(1, settings.budget.candidates // len(names))
    return FilledQuotas({name: int(sections[name].get("quota", share)) for name in names})


def make_fuser(settings: RecommendSettings) -> Fuser:
    """Return the fuser."""
    return FUSERS[settings.fusion](settings.fusion_weights)


def make_rerankers(settings: RecommendSettings, dataset: Dataset, vectors: Array | None = None) -> list[Reranker]:
    """Return the re-rankers in their order: diversity, then caps.

    Args:
        settings: which. dataset: whose categories are capped. vectors: (N, d) of the items, where diversity needs them.
    """
    made: list[Reranker] = []
    if settings.rerank != "none":
        if vectors is None:
            raise ConfigError("Diversity needs the items' vectors.", where=f"recommend.rerank: {settings.rerank}")
        kind = MMR if settings.rerank == "mmr" else DPP
        made.append(kind(vectors, settings.rerank_strength))
    if settings.most_per_category is not None:
        made.append(Caps({"category": deepest_category(dataset)}, {"category": settings.most_per_category}))
    return made


def deepest_category(dataset: Dataset) -> Array:
    """Return a code (N,) of each item's deepest category, −1 where it has none."""
    if not dataset.levels:
        return np.full(dataset.n_items, -1)
    return dataset.items[dataset.levels[-1]].rank("dense").cast(int).fill_null(0).to_numpy().astype(np.int64) - 1


def make_cascade(
    settings: RecommendSettings,
    dataset: Dataset,
    retrievers: Mapping[str, Retriever],
    ranker: Scorer[Any] | None,
    vectors: Array | None = None,
) -> Cascade:
    """Compose fitted components as the settings say."""
    return Cascade(
        retrievers,
        make_merge(settings, list(retrievers)),
        None if ranker is None else Ranking(ranker, make_fuser(settings)),
        rerankers=make_rerankers(settings, dataset, vectors),
        budget=settings.budget,
    )
