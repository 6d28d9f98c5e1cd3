"""Low-rank attention over the whole history, compared with the last hundred behaviours, where tastes are long-term.

There are few users, who come often, so that histories have several hundred behaviours. The exact part checks that the
factored softmax equals the full one on a history of the same rank, and that the processor time for computing interests
grows linearly with the length of the history, up to 100,000 behaviours. Attention by interests is only an
approximation. In the twin, users like everything equally, so their history is uninformative. AUC is reported with the
milliseconds of a request with 200 candidates; linear attention (Katharopoulos et al. 2020) is reported, too.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import elu

from benchmarks.components.comparison import Arm, Component
from benchmarks.components.ranking_worlds import TRAINING, ranker_arm, ranking_log
from benchmarks.harness import Result
from taiji.models.ranking.lifelong import LifelongNetwork, LifelongRanker
from taiji.nn.low_rank_attention import LowRankAttention, Operator

RATES = ({"learning_rate": 6e-3}, {"learning_rate": 2e-2})
SHARED = {**TRAINING, "min_steps": 30, "hidden": (64,), "rank": 8, "pair_fields": ()}
WIDTH, RANK, CANDIDATES = 16, 8, 200


def exact(result: Result, quick: bool) -> None:
    """Check identities in float64, and measure milliseconds by length of the history."""
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
                result.at_least("lifelong: slope of the time of interests in the history's length", slope, 0.75)


def fastest(attention: LowRankAttention, *inputs: torch.Tensor) -> float:
    """Return the seconds of processor time of the fastest of some runs."""
    taken = []
    for _ in range(8):
        start = time.process_time()
        attention(*inputs)
        taken.append(time.process_time() - start)
    return min(taken)


class LinearAttention(nn.Module):
    """Attention by φ(q)ᵀ Σ φ(h) hᵀ / φ(q)ᵀ Σ φ(h) with φ = ELU + 1."""

    def forward(self, queries: torch.Tensor, history: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the attention of each candidate (B, m, d) over a history (B, N, d)."""
        asked = elu(queries) + 1
        keys = (elu(history) + 1) * mask.to(history.dtype).unsqueeze(2)
        return (asked @ (keys.transpose(1, 2) @ history)) / (asked @ keys.sum(dim=1).unsqueeze(2) + 1e-6)


class LinearNetwork(LifelongNetwork):
    """The same network with linear attention."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        for name in list(self.attention):
            self.attention[name] = LinearAttention()


class LinearRanker(LifelongRanker):
    """See :class:`LinearNetwork`."""

    network_class = LinearNetwork


def arm(kind: type[LifelongRanker] = LifelongRanker, **settings: Any) -> Arm:
    """Return a ranker as an arm."""
    return ranker_arm(kind, {**SHARED, "history": 300, **settings}, RATES, ["click"])


COMPONENT = Component(
    claim="interests of the whole history rank better than its last hundred behaviours",
    metric="auc",
    arms={
        "interest_softmax": arm(),
        "truncated to 100": arm(history=100, operator="full_softmax"),
        "full_softmax": arm(operator="full_softmax"),
        "factored_softmax": arm(operator="factored_softmax"),
        "linear attention": arm(LinearRanker),
    },
    data=ranking_log(
        "short-video", "taste", users=8, items=300, days=30, visits=2.5, quick_users=12, quick_days=6, quick_items=60
    ),
    exact=exact,
)
