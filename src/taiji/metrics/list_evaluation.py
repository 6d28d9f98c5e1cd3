"""Evaluation of several arms' lists on the same requests, with an interval for every metric and paired comparisons."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taiji.metrics.bootstrap import Ratio, distribution
from taiji.metrics.intervals import differences, interval_of
from taiji.metrics.list_metrics import Targets, coverage, diversity, hit_rate, hits, ndcg, novelty, recall
from taiji.metrics.ranking_metrics import mean_by

Array = NDArray[Any]
PROPORTIONS = ("recall", "hit", "ndcg", "diversity")
"""Metrics whose values lie in [0, 1]."""


def evaluate_lists(
    lists: Mapping[str, Array],
    targets: Targets,
    users: Array,
    *,
    depths: Sequence[int],
    popularity: Array,
    categories: Array | None = None,
    against: str = "",
    competitors: Sequence[str] = (),
    further: Callable[[Array], Mapping[str, Array]] | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Return every metric of every arm's lists.

    Args:
        lists: items (B, K) of each arm, best first, padded with −1; K may differ between arms.
        targets: targets of the B requests.
        users: (B,) user of each request; a user's requests are averaged, and users are resampled.
        depths: lengths at which recall, hit rate, NDCG, novelty, diversity and coverage are computed.
        popularity: (N,) share of users who interacted with an item before the requests.
        categories: (N,) category code of each item; without them, diversity is not computed.
        against, competitors: see :func:`taiji.metrics.ranker_evaluation.evaluate_rankers`.
        further: function from lists (B, K) to additional metrics: values per request (B,), by name. A metric that only
            some arms have, because it depends on K, is compared among these arms.
        resamples, level, seed: number of bootstrap resamples, coverage of the intervals, and random seed.

    Returns:
        Rows ``{"arm", "metric", "value", "low", "high", "n"}`` with ``difference`` and ``competitors`` as in
        :func:`~taiji.metrics.ranker_evaluation.evaluate_rankers`. Catalogue coverage is a property of all lists
        together and has no interval.
    """
    _, owner = np.unique(users, return_inverse=True)
    found = {
        arm: {**_values(rows, targets, depths, popularity, categories), **(further(rows) if further else {})}
        for arm, rows in lists.items()
    }
    rows: list[dict[str, Any]] = []
    for metric in dict.fromkeys(metric for values in found.values() for metric in values):
        arms = [arm for arm in lists if metric in found[arm]]
        contents = [lists[arm].tobytes() for arm in arms]
        proportion = metric.partition("@")[0] in PROPORTIONS
        statistics = [
            [Ratio.of_values(mean_by(owner, found[arm][metric], int(owner.max(initial=-1)) + 1), proportion=proportion)]
            for arm in arms
        ]
        points, draws = distribution([own[0] for own in statistics], resamples=resamples, seed=seed)
        gaps = differences(arms, points, draws, statistics, contents, against, competitors, level)
        rows += [
            {"arm": arm, "metric": metric, **interval_of(own, points[at], draws[:, at], level), **gaps[at]}
            for at, (arm, own) in enumerate(zip(arms, statistics))
        ]
    for arm in lists:
        for depth in depths:
            value = coverage(lists[arm], len(popularity), depth)
            rows.append({"arm": arm, "metric": f"coverage@{depth}", "value": value, "low": None, "high": None, "n": 1})
    return rows


def _values(
    rows: Array, targets: Targets, depths: Sequence[int], popularity: Array, categories: Array | None
) -> dict[str, Array]:
    """Return each metric's values per request (B,), by name."""
    hit, counts = hits(rows, targets), targets.counts
    out: dict[str, Array] = {}
    for depth in depths:
        out[f"recall@{depth}"] = recall(hit, counts, depth)
        out[f"hit@{depth}"] = hit_rate(hit, counts, depth)
        out[f"ndcg@{depth}"] = ndcg(hit, counts, depth)
        out[f"novelty@{depth}"] = novelty(rows, popularity, depth)
        if categories is not None:
            out[f"diversity@{depth}"] = diversity(rows, categories, depth)
    return out
