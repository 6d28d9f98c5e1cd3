"""Evaluation of a recommender on a log: recall after every step, the final list, ablation of each component, and
latency."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taiji.cascade.assembly import deepest_category, make_merge, make_rerankers, whole_fuser
from taiji.cascade.cascade import MERGED, Cascade, Ranking
from taiji.cascade.component_findings import component_findings, log_limits
from taiji.cascade.log_slices import facts_of, slices_of
from taiji.cascade.merging import FusedRanks
from taiji.cascade.remembered import BLOCK, RememberedRetriever, RememberedScorer, Rows
from taiji.cascade.settings import RecommendSettings
from taiji.core.component import NO_ITEM, Fuser, Requests, Retriever, Scorer, Slate
from taiji.core.progress import progress
from taiji.data.dataset import Dataset
from taiji.metrics.list_evaluation import evaluate_lists
from taiji.metrics.list_metrics import Targets

Array = NDArray[Any]
log = logging.getLogger(__name__)
WHOLE, POPULAR, RANKED = "all components", "popular", "ranked"
BASELINES = {"popularity": "popularity", "cooccurrence": "co-occurrence"}
"""Baseline models, which every trained component must beat, with their display names."""
COMPARED_DEPTH = 50
"""Depth at which components are compared with the baselines; the nearest of ``depths`` is used."""


@dataclass(frozen=True)
class Evaluation:
    """Results of a recommender's evaluation.

    Attributes:
        retrieval: rows of :func:`taiji.metrics.list_evaluation.evaluate_lists`, whose arms are the retrievers, their
            merge, and the merge in the ranker's order.
        lists: rows of the same function for the final lists; the arms are the variants of the cascade.
        milliseconds: median milliseconds per request, by step; requests are processed in blocks.
        components: result of :func:`taiji.cascade.component_findings.component_findings`.
        slices: rows of the metric by which components are compared, on each slice of the log. The reasons stated in
            ``components`` are derived from these rows.
        facts: fields of :class:`taiji.cascade.log_slices.LogFacts`, and ``limits``, the result of
            :func:`taiji.cascade.component_findings.log_limits`.
        candidates: mean number of candidates after each step, by step.
        shown: final lists (B, K), by variant.
    """

    retrieval: list[dict[str, Any]]
    lists: list[dict[str, Any]]
    milliseconds: Mapping[str, float]
    components: list[dict[str, Any]] = field(default_factory=list)
    slices: list[dict[str, Any]] = field(default_factory=list)
    facts: Mapping[str, Any] = field(default_factory=dict)
    candidates: Mapping[str, float] = field(default_factory=dict)
    shown: Mapping[str, Array] = field(default_factory=dict)


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
    further: Callable[[Array], Mapping[str, Array]] | None = None,
    fuser: Fuser | None = None,
    without_fields: Mapping[str, Scorer[Any]] | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Evaluation:
    """Evaluate a recommender and its variants on the same requests.

    Args:
        settings: composition of the recommender, and settings of the evaluation.
        dataset: the log.
        retrievers, ranker: fitted components.
        requests, targets: requests and targets of the test period.
        before: start of the test period (microseconds). Popularity (in novelty, slices and facts), and whether an item
            is new, are determined from earlier interactions only.
        vectors: (N, d) item vectors, for re-rankers.
        further: function from final lists (B, K) to additional metrics, which are values per request (B,) by name.
        fuser: the fitted fusion, if the settings name one.
        without_fields: rankers, each trained without one field, by the name of this field; each adds a variant to the
            comparison.
        resamples, level, seed: number of bootstrap resamples, coverage of the intervals, and random seed.
    """
    if not len(requests):
        return Evaluation([], [], {})
    kinds = deepest_category(dataset)
    common: dict[str, Any] = {
        "popularity": item_popularity(dataset, before),
        "categories": kinds if (kinds >= 0).any() else None,
        "resamples": resamples,
        "level": level,
        "seed": seed,
    }
    at = Rows()
    slates: dict[str, Slate] = {}
    spent: dict[str, float] = {}
    for name, retriever in retrievers.items():
        slates[name], spent[f"retrieve: {name}"] = _retrieved(name, retriever, requests, settings.budget.retrieved)
    remembered = None if ranker is None else RememberedScorer(ranker, requests, slates, at)
    merged = make_merge(settings, list(slates))(slates, settings.budget.candidates)

    depth = min(settings.depths, key=lambda depth: abs(depth - COMPARED_DEPTH))
    baselines = baseline_arms(settings, slates)
    names = [*baselines, *(name for name in slates if name not in baselines)]
    found = {name: slates[name].items for name in names} | {MERGED: merged.items}
    if remembered is not None:
        ranked = variants(settings, dataset, slates, remembered, vectors, at, fuser=fuser)["without re-ranking"]
        found[RANKED], _ = _recommended(RANKED, ranked, requests, max(settings.depths), at)
    found = {name: padded(items, max(settings.depths)) for name, items in found.items()}
    against: dict[str, Any] = {"against": next(iter(baselines), ""), "competitors": list(baselines)}
    retrieval = evaluate_lists(found, targets, requests.user, depths=settings.depths, **against, **common)
    slices: list[dict[str, Any]] = []
    for name, rows, wanted in slices_of(dataset, requests, targets, before):
        part = {arm: items[rows] for arm, items in found.items()}
        of = evaluate_lists(part, wanted, requests.user[rows], depths=(depth,), **against, **common)
        slices += [{"slice": name, "requests": len(rows), **row} for row in of if row["metric"] == f"recall@{depth}"]
    facts = facts_of(dataset, requests, targets, before)

    lists: dict[str, Array] = {}
    milliseconds: dict[str, float] = {}
    others = {field: RememberedScorer(other, requests, slates, at) for field, other in (without_fields or {}).items()}
    composed = variants(settings, dataset, slates, remembered, vectors, at, ranker, fuser, others)
    for variant, cascade in composed.items():
        if variant == "without re-ranking" and not make_rerankers(settings, dataset, vectors):
            continue
        log.info("Recommending: %s", variant)
        lists[variant], steps = _recommended(variant, cascade, requests, settings.length, at)
        if variant == WHOLE:
            milliseconds = {**spent, **steps}
    final = evaluate_lists(
        lists, targets, requests.user, depths=(settings.length,), against=WHOLE, further=further, **common
    )
    counts = {f"retrieve: {name}": slate for name, slate in slates.items()} | {"merge": merged}
    candidates = {step: float(slate.mask.sum(axis=1).mean()) for step, slate in counts.items()}
    candidates["list"] = float((lists[WHOLE] != NO_ITEM).sum(axis=1).mean())
    findings = component_findings(retrieval, slices, baselines, f"recall@{depth}")
    return Evaluation(
        retrieval,
        final,
        milliseconds,
        findings,
        slices,
        {**facts.to_json(), "limits": log_limits(facts)},
        candidates,
        lists,
    )


def baseline_arms(settings: RecommendSettings, names: Mapping[str, Any]) -> dict[str, str]:
    """Return the first retriever of each baseline model among ``names``: arm to display name, popularity first."""
    found = {}
    for model, title in BASELINES.items():
        arm = next((name for name in names if settings.retrievers[name].get("model") == model), None)
        if arm is not None:
            found[arm] = title
    return found


def variants(
    settings: RecommendSettings,
    dataset: Dataset,
    slates: Mapping[str, Slate],
    remembered: Scorer[Any] | None,
    vectors: Array | None,
    at: Rows,
    ranker: Scorer[Any] | None = None,
    fuser: Fuser | None = None,
    without_fields: Mapping[str, Scorer[Any]] | None = None,
) -> dict[str, Cascade]:
    """Return the full cascade and its variants, each without a component or with a simpler one in its place.

    Variants use stored outputs of the components.

    Args:
        settings, dataset, vectors: as for :func:`evaluate_recommender`.
        slates: stored slates of each retriever.
        remembered: stored predictions of the ranker.
        at: row indices of the current requests.
        ranker: ranker that replaces ``remembered`` in the full cascade, so that its time is measured.
        fuser: the fitted fusion, if the settings name one; one variant uses averaged ranks instead.
        without_fields: stored predictions of rankers, each trained without one field, by the name of this field.
    """

    # No variant has a time limit. A limit is for one request, but here a block of requests runs. Besides, variants
    # with stored predictions take almost no time, so a limit would affect only the full cascade.
    unhurried = settings.budget.unhurried()

    def composed(
        names: Sequence[str],
        scorer: Scorer[Any] | None = remembered,
        *,
        reranked: bool = True,
        by: RecommendSettings = settings,
    ) -> Cascade:
        return Cascade(
            {name: RememberedRetriever(slates[name], at) for name in names},
            make_merge(settings, names),
            None if scorer is None else Ranking(scorer, whole_fuser(by, fuser if by is settings else None, dataset)),
            rerankers=make_rerankers(settings, dataset, vectors) if reranked else (),
            budget=unhurried,
        )

    names = list(slates)
    out = {WHOLE: composed(names, ranker or remembered)}
    if len(names) > 1:
        out |= {f"without {name}": composed([other for other in names if other != name]) for name in names}
    if remembered is not None:
        out["without the ranker"] = composed(names, None)
    for field_name, scorer in (without_fields or {}).items():
        out[f"ranker without {field_name}"] = composed(names, scorer)
    if remembered is not None and fuser is not None:
        plain = settings.model_copy(update={"fusion": "rank_average", "fusion_settings": {}})
        out["averaged ranks in place of the fusion"] = composed(names, by=plain)
    out["without re-ranking"] = composed(names, reranked=False)
    if POPULAR in slates and len(names) > 1:
        popular = {POPULAR: RememberedRetriever(slates[POPULAR], at)}
        out["popularity alone"] = Cascade(popular, FusedRanks((POPULAR,)), budget=unhurried)
    return out


def item_popularity(dataset: Dataset, before: int) -> Array:
    """Return for each item (N,) the share of users who interacted with it before a time, among all users with earlier
    interactions.
    """
    history = dataset.history
    owner = np.repeat(np.arange(history.n_users), np.diff(history.offsets))
    past = np.asarray(history.times) < before
    pairs = np.unique(owner[past] * dataset.n_items + np.asarray(history.items)[past])
    counts = np.bincount(pairs % dataset.n_items, minlength=dataset.n_items)
    return counts / max(len(np.unique(owner[past])), 1)


def padded(items: Array, width: int) -> Array:
    """Return lists (B, width), truncated or padded with −1."""
    out = np.full((len(items), width), NO_ITEM, dtype=np.int64)
    out[:, : min(width, items.shape[1])] = items[:, :width]
    return out


def _retrieved(name: str, retriever: Retriever, requests: Requests, k: int) -> tuple[Slate, float]:
    """Return a retriever's slates for all requests, and the median milliseconds per request."""
    parts, seconds = [], []
    with progress(f"retrieving: {name}", len(requests)) as update:
        for start in range(0, len(requests), BLOCK):
            part = requests.take(slice(start, start + BLOCK))
            begin = time.perf_counter()
            parts.append(retriever.retrieve(part, k))
            seconds.append((time.perf_counter() - begin) / len(part))
            update(start + len(part))
    return Slate(np.concatenate([padded(part.items, k) for part in parts])), 1e3 * float(np.median(seconds))


def _recommended(
    variant: str, cascade: Cascade, requests: Requests, k: int, at: Rows
) -> tuple[Array, dict[str, float]]:
    """Return the lists (B, k), and the median milliseconds per step and request."""
    lists, seconds = [], []
    with progress(f"recommending: {variant}", len(requests)) as update:
        for start in range(0, len(requests), BLOCK):
            at.rows = slice(start, min(start + BLOCK, len(requests)))
            found = cascade.recommend(requests.take(at.rows), k)
            lists.append(padded(found.slate.items, k))
            size = at.rows.stop - at.rows.start
            seconds.append({step: value / size for step, value in found.seconds.items()})
            update(at.rows.stop)
    steps = {step: 1e3 * float(np.median([s[step] for s in seconds])) for step in seconds[0] if step != "retrieve"}
    return np.concatenate(lists), steps
