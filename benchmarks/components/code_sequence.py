"""Does a ranker gain if it searches a long history by item codes, compared with reading the last twenty behaviours?

In the world ``short-video``, tastes are long-term; in the twin, users like everything equally, so no search can help.
Items have three codes each, from residual k-means of item factors of the training period. Of the user's last 300
behaviours, ``found by codes`` reads the twenty that share the most leading codes with the candidate.

Arms: ``last twenty``, the deciding baseline; ``whole history``, attention to all 300 entries; ``codes dealt at
random``, a control in which the codes are permuted among the items, so that the search finds unrelated entries. Metric:
click AUC. All arms have the same network and training settings, and choose between the same two learning rates.
:mod:`benchmarks.components.comparison` explains the columns, the checks, and what is held equal for all arms. The exact
part checks that attention to the found entries equals masked attention to all entries.

    python -m benchmarks.components --only code_sequence [--quick] [--json benchmarks/results/code_sequence.json]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from benchmarks.components.comparison import Arm, Component, Outcome
from benchmarks.components.ranking_worlds import RankingLog, ranker_arm, ranking_log
from benchmarks.harness import Result
from taiji.data.history import History
from taiji.models.codes.item_codes import ItemCodes
from taiji.models.codes.residual_kmeans import ResidualKMeans, ResidualKMeansSettings
from taiji.models.ranking.code_sequence import CodeSequenceRanker
from taiji.models.retrieval.item_factors import item_factors
from taiji.nn.code_search import attend_found, attend_masked, search, shared_levels

RATES = ({"learning_rate": 2e-3}, {"learning_rate": 6e-3})
SHARED = {"min_steps": 150, "hidden": (64,)}
CODES = ResidualKMeansSettings(levels=3, size=8)


def coded(make: Callable[[str, int, bool], RankingLog]) -> Callable[[str, int, bool], RankingLog]:
    """Return ``make`` with codes for the items of its logs. The codes are learnt from the training period alone."""

    def data(place: str, seed: int, quick: bool) -> RankingLog:
        log = make(place, seed, quick)
        history = History.from_events(log.train, log.dataset.n_users)
        factors = item_factors(history, log.dataset.n_items, 16, seed)
        return replace(
            log, dataset=ItemCodes.of(ResidualKMeans(CODES).fit(factors, seed=seed), factors).on(log.dataset)
        )

    return data


def dealt(arm: Arm) -> Arm:
    """Return an arm in which the codes are permuted at random among the items."""

    def run(log: RankingLog, configuration: Mapping[str, Any], seed: int) -> Outcome:
        items = log.dataset.items
        names = [name for name in items.columns if name.startswith("code_")]
        order = np.random.default_rng(seed).permutation(len(items))
        mixed = items.with_columns(items[name].gather(order) for name in names)
        return arm.run(replace(log, dataset=replace(log.dataset, items=mixed)), configuration, seed)

    return Arm(run, arm.configurations)


def arm(**fixed: Any) -> Arm:
    """Return the ranker with these settings as an arm. The configuration is chosen by the click AUC."""
    return ranker_arm(CodeSequenceRanker, {**SHARED, **fixed}, RATES, ["click"])


def exact(result: Result, quick: bool) -> None:
    """Compare two computations of attention in float64: over the entries that the search found, and over all entries,
    with the others masked."""
    torch.manual_seed(0)
    mine, theirs = torch.randint(0, 4, (2, 50, 3)), torch.randint(0, 4, (2, 2000, 3))
    query, history = torch.randn(2, 50, 16).double(), torch.randn(2, 2000, 16).double()
    there, shared = torch.ones(2, 2000, dtype=torch.bool), shared_levels(mine, theirs, 0)
    found = attend_found(query, history, *search(shared, there, 2000, 1))
    distance = float((found - attend_masked(query, history, shared >= 1)).abs().max())
    result.at_most(
        "code_sequence: largest difference of attention to found entries from masked attention to all", distance, 1e-12
    )


COMPONENT = Component(
    claim="twenty entries found by codes in a long history rank better than its last twenty",
    metric="auc",
    arms={
        "found by codes": arm(history=300, found=20),
        "last twenty": arm(history=20, found=20, least_levels=0),
        "whole history": arm(history=300, found=300, least_levels=0),
        "codes dealt at random": dealt(arm(history=300, found=20)),
    },
    data=coded(
        ranking_log("short-video", "taste", users=60, items=300, days=40, quick_users=12, quick_days=6, quick_items=60)
    ),
    exact=exact,
)
