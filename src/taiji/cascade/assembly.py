"""Construction of a cascade's components from settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from taiji.cascade.cascade import MERGED, Cascade, Merge, Ranking
from taiji.cascade.merging import FilledQuotas, FusedRanks
from taiji.cascade.settings import RecommendSettings
from taiji.core.component import DatasetFuser, Fuser, Reranker, Retriever, Scorer, find_class
from taiji.core.errors import ConfigError
from taiji.core.settings import problem_text
from taiji.data.dataset import Dataset
from taiji.models.fusion.learnt_fusion import LearntFusion
from taiji.models.fusion.weighted import BesideMerge
from taiji.models.rerank.diversity import Caps
from taiji.models.retrieval.retriever import CatalogueRetriever, retriever_class

Array = NDArray[Any]
OWN_KEYS = ("model", "weight", "quota")
"""Keys of a retriever's section that are not settings of its model."""
FUSERS = "taiji.fusers"
"""Entry-point group of fusers."""
RERANKERS = "taiji.rerankers"
"""Entry-point group of re-rankers."""


def make_retriever(name: str, values: Mapping[str, Any]) -> CatalogueRetriever:
    """Return the unfitted retriever described by a section of ``recommend.retrievers``.

    Raises:
        ConfigError: the section has no model, an unknown model, or invalid settings.
    """
    where = f"recommend.retrievers.{name}"
    if "model" not in values:
        raise ConfigError(
            "A retriever has no model.",
            where=where,
            expected="a key model, as in `model: popularity`",
            found=str(dict(values)),
        )
    kind = retriever_class(str(values["model"]), f"{where}.model")
    try:
        settings = kind.Settings.model_validate({key: v for key, v in values.items() if key not in OWN_KEYS})
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, p['loc']))} {problem_text(p)}" for p in error.errors(include_url=False)]
        raise ConfigError(
            "The settings of a retriever are invalid.",
            where=where,
            expected=", ".join(kind.Settings.model_fields),
            found="; ".join(problems),
        ) from error
    return kind(settings)


def make_merge(settings: RecommendSettings, names: Sequence[str]) -> Merge:
    """Return the merge of the slates of the retrievers ``names``.

    Raises:
        ConfigError: a weight or a quota is invalid.
    """
    sections = settings.retrievers
    share = max(1, settings.budget.candidates // len(names))
    weights = {name: sections[name].get("weight", 1.0) for name in names}
    quotas = {name: sections[name].get("quota", share) for name in names}
    for name in names:
        _check(f"{name}.weight", weights[name], "a number above 0", whole=False)
        _check(f"{name}.quota", quotas[name], "an integer of at least 1", whole=True)
    if settings.merge == "rank_fusion":
        return FusedRanks(tuple(names), {name: float(weight) for name, weight in weights.items()})
    return FilledQuotas(quotas)


def _check(name: str, value: Any, expected: str, *, whole: bool) -> None:
    number = isinstance(value, int) or (isinstance(value, float) and not whole)
    if not number or isinstance(value, bool) or not 0 < value < float("inf"):
        raise ConfigError(
            "A setting of a retriever is invalid.",
            where=f"recommend.retrievers.{name}",
            expected=expected,
            found=repr(value),
        )


def make_fuser(settings: RecommendSettings) -> Fuser:
    """Return the fuser named by ``recommend.fusion``; a :class:`LearntFusion` is returned unfitted.

    A fitted fusion reads only the ranker's predictions; :func:`whole_fuser` applies the weight of the merge's score.

    Raises:
        ConfigError: the name is unknown, or the settings are invalid.
    """
    where = "recommend.fusion"
    kind = find_class(settings.fusion, FUSERS, where)
    weights = dict(settings.fusion_weights)
    if not fitted_fusion(settings):
        try:
            return kind(weights, **settings.fusion_settings)  # type: ignore[no-any-return]
        except TypeError as error:
            raise ConfigError(
                "The fusion cannot be created.",
                where=where,
                expected="a class that is called with the weights and the settings",
                found=f"{settings.fusion} ({error})",
            ) from error
    own = {task: weight for task, weight in weights.items() if task != MERGED}
    try:
        return kind(kind.Settings.model_validate({**settings.fusion_settings, "weights": own}))  # type: ignore[no-any-return]
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, p['loc']))} {problem_text(p)}" for p in error.errors(include_url=False)]
        raise ConfigError(
            "The settings of the fusion are invalid.",
            where="recommend.fusion_settings",
            expected=", ".join(kind.Settings.model_fields),
            found="; ".join(problems),
        ) from error


def fitted_fusion(settings: RecommendSettings) -> bool:
    """Return True if ``recommend.fusion`` names a fusion that must be fitted."""
    kind = find_class(settings.fusion, FUSERS, "recommend.fusion")
    return isinstance(kind, type) and issubclass(kind, LearntFusion)


def whole_fuser(settings: RecommendSettings, fitted: Fuser | None, dataset: Dataset) -> Fuser:
    """Return the fuser of a cascade.

    A fitted fusion whose settings give the merge's score a weight is combined with this score by averaged ranks.

    Args:
        settings: composition of the recommender.
        fitted: existing fuser (the result of the stage ``fusion``, or a fuser of the service); None creates one from
            the settings.
        dataset: dataset in which the fuser looks up columns of users and items.

    Raises:
        ConfigError: the named fusion must be fitted, and no fitted one is given.
    """
    if not fitted_fusion(settings):
        made = make_fuser(settings) if fitted is None else fitted
        return made.bound_to(dataset) if isinstance(made, DatasetFuser) else made
    if fitted is None:
        raise ConfigError(
            "The fusion has not been fitted.",
            where=f"recommend.fusion: {settings.fusion}",
            expected="the result of the stage fusion",
            found="none",
        )
    weights = settings.fusion_weights
    if MERGED not in weights:
        return fitted
    return BesideMerge(fitted, sum(weights.values()) - weights[MERGED], weights[MERGED])


def make_rerankers(settings: RecommendSettings, dataset: Dataset, vectors: Array | None = None) -> list[Reranker]:
    """Return the re-rankers in order: diversity, then caps.

    Args:
        settings: composition of the recommender.
        dataset: dataset with the categories of the items, for the caps.
        vectors: (N, d) item vectors; required if the settings name a re-ranker.
    """
    made: list[Reranker] = []
    if settings.rerank != "none":
        if vectors is None:
            raise ConfigError(
                "There are no item vectors for the re-ranker.",
                where=f"recommend.rerank: {settings.rerank}",
                expected="one vector per item",
                found="none",
            )
        kind = find_class(settings.rerank, RERANKERS, "recommend.rerank")
        try:
            made.append(kind(vectors, settings.rerank_strength, **settings.rerank_settings))
        except TypeError as error:
            raise ConfigError(
                "The re-ranker cannot be created.",
                where="recommend.rerank",
                expected="a class or function that is called with the vectors, the strength, and rerank_settings",
                found=f"{settings.rerank} ({error})",
            ) from error
    if settings.most_per_category is not None:
        made.append(Caps({"category": deepest_category(dataset)}, {"category": settings.most_per_category}))
    return made


def deepest_category(dataset: Dataset) -> Array:
    """Return the code (N,) of each item's category at the deepest level, −1 if it has none there."""
    if not dataset.levels:
        return np.full(dataset.n_items, -1)
    return dataset.items[dataset.levels[-1]].rank("dense").cast(int).fill_null(0).to_numpy().astype(np.int64) - 1


def item_vectors(dataset: Dataset, name: str, device: str) -> Array:
    """Return the text vectors (N, d) of all items from the named embedder."""
    from taiji.language.embed import load_embedder
    from taiji.reasoning.prompts import item_lines

    return load_embedder(name, device).encode(item_lines(dataset))


def make_cascade(
    settings: RecommendSettings,
    dataset: Dataset,
    retrievers: Mapping[str, Retriever],
    ranker: Scorer[Any] | None,
    vectors: Array | None = None,
    fuser: Fuser | None = None,
) -> Cascade:
    """Compose fitted components according to the settings; see :func:`whole_fuser` for ``fuser``."""
    return Cascade(
        retrievers,
        make_merge(settings, list(retrievers)),
        None if ranker is None else Ranking(ranker, whole_fuser(settings, fuser, dataset)),
        rerankers=make_rerankers(settings, dataset, vectors),
        budget=settings.budget,
    )
