"""Attention over the whole history at low rank beside the last twenty behaviours, where tastes are long-term.

Exact: the factored softmax equals the full one on a history of that rank, interests do not, and the time to make them grows with the
history's length as it is. The twin has users who like everything alike, whose history says nothing.
"""

from __future__ import annotations

import time

import numpy as np
import torch

from benchmarks.components.comparison import Component
from benchmarks.components.ranking_worlds import ranker_arm, ranking_log
from benchmarks.harness import Result
from taiji.models.ranking.lifelong import LifelongRanker
from taiji.nn.low_rank_attention import LowRankAttention, Operator

RATES = ({"learning_rate": 2e-3}, {"learning_rate": 6e-3})
SHARED = {"min_steps": 150, "hidden": (64,), "rank": 8}
WIDTH, RANK, CANDIDATES = 16, 8, 200


def exact(result: Result, quick: bool) -> None:
    """Identities in float64, and milliseconds by length of the history."""
    torch.manual_seed(0)
    history = torch.randn(1, 3000, RANK).double() @ torch.randn(1, RANK, WIDTH).double()
    queries, mask = torch.randn(1, CANDIDATES, WIDTH).double(), torch.ones(1, 3000, dtype=torch.bool)

    def of(operator: Operator) -> torch.Tensor:
        found: torch.Tensor = LowRankAttention(WIDTH, RANK, operator).double()(queries, history, mask)
        return found

    full = of("full_softmax")
    distance = float((of("factored_softmax") - full).abs().max() / full.abs().max())
    result.at_most("lifelong: factored softmax on a history of its rank, off the full one by", distance, 1e-10)
    cosine = float(torch.cosine_similarity(of("interest_softmax").flatten(), full.flatten(), dim=0))
    result.rows.append({"component": "lifelong", "metric": "cosine of interests and full softmax", "value": cosine})
    lengths = (1000, 3000, 10_000) if quick else (1000, 3000, 10_000, 30_000, 100_000)
    with torch.inference_mode():
        for operator in ("full_softmax", "factored_softmax", "interest_softmax"):
            seconds = []
            for length in lengths:
                attention = LowRankAttention(WIDTH, RANK, operator)  # type: ignore[arg-type]
                inputs = torch.randn(1, CANDIDATES, WIDTH), torch.randn(1, length, WIDTH)
                seconds.append(fastest(attention, *inputs, torch.ones(1, length, dtype=torch.bool)))
                row = {"component": "lifelong", "arm": operator, "metric": f"ms, {length} behaviours"}
                result.rows.append({**row, "value": 1e3 * seconds[-1]})
            slope = float(np.polyfit(np.log(lengths[-3:]), np.log(seconds[-3:]), 1)[0])
            result.rows.append({"component": "lifelong", "arm": operator, "metric": "slope in N", "value": slope})
            if operator == "interest_softmax" and not quick:
                result.at_most("lifelong: slope of the time of interests in the history's length", slope, 1.25)


def fastest(attention: LowRankAttention, *inputs: torch.Tensor) -> float:
    """Return the seconds of the fastest of some runs."""
    taken = []
    for _ in range(8):
        start = time.perf_counter()
        attention(*inputs)
        taken.append(time.perf_counter() - start)
    return min(taken)


COMPONENT = Component(
    claim="interests of the whole history rank better than its last twenty behaviours",
    metric="auc",
    arms={
        "interest_softmax": ranker_arm(LifelongRanker, {**SHARED, "history": 300}, RATES, ["click"]),
        "truncated to 20": ranker_arm(
            LifelongRanker, {**SHARED, "history": 20, "operator": "full_softmax"}, RATES, ["click"]
        ),
        "full_softmax": ranker_arm(
            LifelongRanker, {**SHARED, "history": 300, "operator": "full_softmax"}, RATES, ["click"]
        ),
        "factored_softmax": ranker_arm(
            LifelongRanker, {**SHARED, "history": 300, "operator": "factored_softmax"}, RATES, ["click"]
        ),
    },
    data=ranking_log(
        "short-video", "taste", users=60, items=300, days=40, quick_users=12, quick_days=6, quick_items=60
    ),
    exact=exact,
)
