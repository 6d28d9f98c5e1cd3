"""A recommender on a log: recall behind every step, the final list, each component taken away, and what it all costs."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taiji.cascade.assembly import deepest_category, make_merge, make_rerankers, whole_fuser
from taiji.cascade.cascade import MERGED, Cascade, Ranking
from taiji.cascade.settings import RecommendSettings
from taiji.core.component import NO_ITEM, Fuser, Requests, Retriever, Scorer, Slate
from taiji.core.progress import progress
from taiji.data.dataset import Dataset
from taiji.metrics.list_evaluation import evaluate_lists
from taiji.metrics.list_metrics import Targets

Array = NDArray[Any]
log = logging.getLogger(__name__)
BLOCK = 128
"""Requests that go through a cascade at a time."""
WHOLE, POPULAR = "all components", "popular"


class Remembered:
    """Answers of a retriever to known requests, so that every variant of a cascade sees the same ones and pays once.

    Args:
        slate: of all requests, in their order.
    """

    def __init__(self, slate: Slate) -> None:
        self.slate, self.rows = slate, slice(0, 0)

    def retrieve(self, requests: Requests, k: int) -> Slate:
        """Return the answers to the requests at ``rows``, which the caller sets."""
        assert self.slate.scores is not None and self.slate.source is not None
        return Slate(
            self.slate.items[self.rows, :k], self.slate.scores[self.rows, :k], self.slate.source[self.rows, :k]
        )


@dataclass(frozen=True)
class Evaluation:
    """Findings on a recommender.

    Attributes:
        retrieval: rows of :func:`taiji.metrics.list_evaluation.evaluate_lists`, arms are the retrievers and their merge.
        lists: the same for the final list of every variant: with all components, and without each of them.
        milliseconds: step to median milliseconds per request, requests in blocks.
    """

    retrieval: list[dict[str, Any]]
    lists: list[dict[str, Any]]
    milliseconds: Mapping[str, float]


def evaluate_recommender(
    settings: RecommendSettings,
    dataset: Dataset,
    retrievers: Mapping[str, Retriever],
    ranker: Scorer[Any] | None,
    requests: Requests,
    targets: Targets,
    *,
    before: int,
    vectors: Array | None = None,
    fuser: Fuser | None = None,
    seed: int = 0,
) -> Evaluation:
    """Evaluate a recommender and its variants on the same requests.

    Args:
        settings: the composition. dataset: the log. retrievers, ranker: fitted. requests, targets: of the test period.
        before: microseconds; interactions before it make an item popular (for novelty). vectors: (N, d) for diversity.
        fuser: the fitted fusion, where the settings name one.
        seed: of the bootstrap.
    """
    if not len(requests):
        return Evaluation([], [], {})
    popularity, kinds = item_popularity(dataset, before), deepest_category(dataset)
    slates: dict[str, Slate] = {}
    spent: dict[str, float] = {}
    for name, retriever in retrievers.items():
        slates[name], spent[f"retrieve: {name}"] = _retrieved(name, retriever, requests, settings.budget.retrieved)
    merged = make_merge(settings, list(slates))(slates, settings.budget.candidates)
    baseline = next((name for name in slates if settings.retrievers[name].get("model") == "popularity"), "")
    common: dict[str, Any] = {
        "popularity": popularity,
        "categories": kinds if (kinds >= 0).any() else None,
        "seed": seed,
    }
    width = max(settings.depths)
    retrieval = evaluate_lists(
        {**{name: padded(slate.items, width) for name, slate in slates.items()}, MERGED: padded(merged.items, width)},
        targets,
        requests.user,
        depths=settings.depths,
        against=baseline,
        **common,
    )
    lists: dict[str, Array] = {}
    milliseconds: dict[str, float] = {}
    for variant, cascade in variants(settings, dataset, slates, ranker, vectors, fuser).items():
        log.info("Recommending: %s", variant)
        lists[variant], steps = _recommended(variant, cascade, requests, settings.length)
        if variant == WHOLE:
            milliseconds = {**spent, **steps}
    final = evaluate_lists(lists, targets, requests.user, depths=(settings.length,), against=WHOLE, **common)
    return Evaluation(retrieval, final, milliseconds)


def variants(
    settings: RecommendSettings,
    dataset: Dataset,
    slates: Mapping[str, Slate],
    ranker: Scorer[Any] | None,
    vectors: Array | None,
    fuser: Fuser | None = None,
) -> dict[str, Cascade]:
    """Return the whole cascade and those without one component each, over remembered answers of the retrievers.

    Instead of a fitted fusion one variant has averaged ranks.
    """

    def composed(
        names: Sequence[str], *, ranked: bool = True, reranked: bool = True, by: RecommendSettings = settings
    ) -> Cascade:
        return Cascade(
            {name: Remembered(slates[name]) for name in names},
            make_merge(settings, names),
            Ranking(ranker, whole_fuser(by, fuser)) if ranked and ranker is not None else None,
            rerankers=make_rerankers(settings, dataset, vectors) if reranked else (),
            budget=settings.budget,
        )

    names = list(slates)
    out = {WHOLE: composed(names)}
    if len(names) > 1:
        out |= {f"without {name}": composed([other for other in names if other != name]) for name in names}
    if ranker is not None:
        out["without the ranker"] = composed(names, ranked=False)
    if ranker is not None and fuser is not None:
        plain = settings.model_copy(update={"fusion": "rank_average", "fusion_settings": {}})
        out["averaged ranks in place of the fusion"] = composed(names, by=plain)
    if make_rerankers(settings, dataset, vectors):
        out["without re-ranking"] = composed(names, reranked=False)
    if POPULAR in slates and len(names) > 1:
        out["popularity alone"] = Cascade({POPULAR: Remembered(slates[POPULAR])}, make_merge(settings, [POPULAR]))
    return out


def item_popularity(dataset: Dataset, before: int) -> Array:
    """Return the share (N,) of users who interacted with each item strictly before a time."""
    history = dataset.history
    owner = np.repeat(np.arange(history.n_users), np.diff(history.offsets))
    past = np.asarray(history.times) < before
    pairs = np.unique(owner[past] * dataset.n_items + np.asarray(history.items)[past])
    counts = np.bincount(pairs % dataset.n_items, minlength=dataset.n_items)
    return counts / max(len(np.unique(owner[past])), 1)


def padded(items: Array, width: int) -> Array:
    """Return lists (B, width), cut or padded with −1."""
    out = np.full((len(items), width), NO_ITEM, dtype=np.int64)
    out[:, : min(width, items.shape[1])] = items[:, :width]
    return out


def _retrieved(name: str, retriever: Retriever, requests: Requests, k: int) -> tuple[Slate, float]:
    """Return a retriever's answers to all requests, and the median milliseconds per request."""
    parts, seconds = [], []
    with progress(f"retrieving: {name}", len(requests)) as update:
        for start in range(0, len(requests), BLOCK):
            part = requests.take(slice(start, start + BLOCK))
            begin = time.perf_counter()
            parts.append(retriever.retrieve(part, k))
            seconds.append((time.perf_counter() - begin) / len(part))
            update(start + len(part))
    return Slate(np.concatenate([padded(part.items, k) for part in parts])), 1e3 * float(np.median(seconds))


def _recommended(variant: str, cascade: Cascade, requests: Requests, k: int) -> tuple[Array, dict[str, float]]:
    """Return the lists (B, k), and the median milliseconds of the steps per request."""
    lists, seconds = [], []
    with progress(f"recommending: {variant}", len(requests)) as update:
        for start in range(0, len(requests), BLOCK):
            rows = slice(start, min(start + BLOCK, len(requests)))
            for retriever in cascade.pool.retrievers.values():
                assert isinstance(retriever, Remembered)
                retriever.rows = rows
            found = cascade.recommend(requests.take(rows), k)
            lists.append(padded(found.slate.items, k))
            seconds.append({step: value / (rows.stop - rows.start) for step, value in found.seconds.items()})
            update(rows.stop)
    steps = {step: 1e3 * float(np.median([s[step] for s in seconds])) for step in seconds[0] if step != "retrieve"}
    return np.concatenate(lists), steps
