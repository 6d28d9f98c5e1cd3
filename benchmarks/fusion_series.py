"""Do fusion, alignment and re-ranking improve the lists of a recommender that is fitted to one log?

The recipe of `taiji recommend` is fitted once and scored once with its default settings, up to the ranker's predictions
for all candidates. Each variant (``arm``) then makes its own lists of ten for the same requests of the test period. The
baseline, ``averaged ranks``, orders candidates by the average of three ranks: by predicted clicks, by predicted
conversions, and in the merged list of the retrievers. Every other variant changes one thing (only the last one changes
two); :data:`SERIES` lists them. A learnt fusion is fitted as in the stage `fusion`: to the exposures of the last period
before the test, with predictions of a ranker trained on the earlier periods.

Each row has the ``value`` of one ``metric`` (NDCG, recall or diversity of the ten items), the number ``n`` of users,
and the difference from the baseline with its 95 % interval (``value``, ``low`` and ``high, minus averaged ranks``),
paired by user. There is no check, because "no gain" is a valid result.

    [SERIES_DATA="ml-latest-small completejourney"] python -m benchmarks.fusion_series [--quick] [--json FILE]

``SERIES_DATA`` names the logs; ml-latest-small is read from ``$TAIJI_TEST_DATA``, and completejourney is a sample of
600 households. A quick run uses the synthetic shop. Results: ``benchmarks/results/fusion_series-LOG.json``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.harness import Result, run
from benchmarks.study import QUICK_SHOP
from taiji.cascade.assembly import (
    deepest_category,
    fitted_fusion,
    item_vectors,
    make_cascade,
    make_fuser,
    make_retriever,
)
from taiji.cascade.evaluation import item_popularity, padded
from taiji.cascade.remembered import BLOCK, RememberedRetriever, RememberedScorer, Rows
from taiji.cascade.requests import period_requests
from taiji.cascade.settings import RecommendSettings
from taiji.core.component import Fuser, Slate
from taiji.data.dataset import Dataset
from taiji.data.sources import load_source
from taiji.data.splits import Split, exposures, time_split
from taiji.metrics.list_evaluation import evaluate_lists
from taiji.models.fusion.logged_slates import logged_slates
from taiji.models.ranking.ranker import Ranker
from taiji.models.ranking.settings import RankerSettings
from taiji.models.ranking.train import train_ranker
from taiji.world.settings import ShopSettings
from taiji.world.shop import Shop

USERS = {"completejourney": 600}
"""Number of sampled users, by log."""
RANKS = "averaged ranks"
WEIGHTS = {"click": 1.0, "conversion": 1.0, "merged": 1.0}
"""Weights of the baseline's ranks."""
KINDS = {"categories": ["category_l1"]}
SERIES: dict[str, dict[str, Any]] = {
    RANKS: {},
    "without the ranker": {"rank": False},
    "ranks of clicks and the merge (the default)": {"fusion_weights": {"click": 1.0, "merged": 1.0}},
    "fusion: monotone ensemble": {"fusion": "monotone_ensemble"},
    "fusion: monotone cells": {"fusion": "cells"},
    "alignment by category": {"fusion": "quantile_alignment", "fusion_settings": KINDS},
    "re-ranking: MMR": {"rerank": "mmr"},
    "re-ranking: DPP": {"rerank": "dpp"},
    "ensemble and MMR": {"fusion": "monotone_ensemble", "rerank": "mmr"},
}
"""Changes of the baseline's settings, by variant."""
METRICS = ("ndcg@10", "recall@10", "diversity@10")


def measure(quick: bool) -> Result:
    """Measure all variants on every log."""
    result = Result()
    names = ["shop"] if quick else os.environ.get("SERIES_DATA", "ml-latest-small completejourney").split()
    for name in names:
        dataset = load(name)
        if dataset is None:
            print(f"{name}: skipped, TAIJI_TEST_DATA does not contain it")
            continue
        for row in series(dataset, quick):
            result.rows.append({"data": name, **row})
        result.so_far()
    return result


def load(name: str) -> Dataset | None:
    """Return a log by its name; None if its files are missing."""
    if name == "shop":
        return Dataset.from_tables(Shop(ShopSettings(**QUICK_SHOP), 0).tables())
    source = name if name in USERS else Path(os.environ.get("TAIJI_TEST_DATA", "")) / name
    if isinstance(source, Path) and not source.is_dir():
        return None
    return Dataset.from_tables(load_source(source, users=USERS.get(name)))


def series(dataset: Dataset, quick: bool, seed: int = 0) -> list[dict[str, Any]]:
    """Return the rows of all variants on one log."""
    base = RecommendSettings(fusion_weights=WEIGHTS)
    small = {"sasrec": {"model": "sasrec", "width": 8, "layers": 1, "epochs": 1}}
    if quick:
        base = base.model_copy(update={"retrievers": {**base.retrievers, **small}})
    ranking = RankerSettings(min_steps=20, hidden=(16,)) if quick else RankerSettings()
    first, _, last, test, end = time_split(dataset).bounds
    past = dataset.events.filter(pl.col("time") < test)
    retrievers = {n: make_retriever(n, v).fit(dataset, past, seed=seed) for n, v in base.retrievers.items()}
    ranker, earlier = (
        train_ranker(dataset, exposures(dataset, Split((first, first, first, until, end)), "ranker"), ranking, seed)
        for until in (test, last)
    )
    assert isinstance(ranker, Ranker) and isinstance(earlier, Ranker)
    shown = exposures(dataset, Split((first, first, last, test, end)), "ranker")
    logged = logged_slates(dataset, shown, earlier.predict(shown), [task.name for task in earlier.tasks])
    new_only = not any(retriever.keeps_seen for retriever in retrievers.values())
    requests, targets = period_requests(dataset, test, base.requests, seed, at=base.request_at, new_only=new_only)

    found = {name: retriever.retrieve(requests, base.budget.retrieved) for name, retriever in retrievers.items()}
    slates = {name: Slate(padded(slate.items, base.budget.retrieved)) for name, slate in found.items()}
    at = Rows()
    remembered = RememberedScorer(ranker, requests, slates, at)
    vectors = item_vectors(dataset, "wordllama", "cpu")
    lists = {}
    for step, changes in SERIES.items():
        settings = RecommendSettings.model_validate({**base.model_dump(), **changes})
        fuser: Fuser | None = None
        if settings.rank and fitted_fusion(settings):
            made: Any = make_fuser(settings)
            fuser = made.fit(logged, dataset, seed=seed)
        answers = {name: RememberedRetriever(slate, at) for name, slate in slates.items()}
        cascade = make_cascade(settings, dataset, answers, remembered if settings.rank else None, vectors, fuser)
        parts = []
        for start in range(0, len(requests), BLOCK):
            at.rows = slice(start, min(start + BLOCK, len(requests)))
            parts.append(padded(cascade.recommend(requests.take(at.rows), base.length).slate.items, base.length))
        lists[step] = np.concatenate(parts)
    kinds = deepest_category(dataset)
    rows = evaluate_lists(
        lists,
        targets,
        requests.user,
        depths=(base.length,),
        popularity=item_popularity(dataset, test),
        categories=kinds if (kinds >= 0).any() else None,
        against=RANKS,
        seed=seed,
    )
    return [told(row) for row in rows if row["metric"] in METRICS]


def told(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of :func:`~taiji.metrics.list_evaluation.evaluate_lists` with the difference in columns of its
    own."""
    gap = row.get("difference") or {}
    return {
        **{name: row[name] for name in ("arm", "metric", "value", "n")},
        **{f"{name}, minus {RANKS}": gap[name] for name in ("value", "low", "high") if name in gap},
    }


if __name__ == "__main__":
    run(measure)
