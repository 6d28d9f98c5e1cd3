"""Does a ranker gain from low-rank attention to a long history, compared with attention to the last hundred behaviours
(SOLAR)?

In the world ``short-video``, tastes are long-term; in the twin, users like everything equally, so a history is
uninformative. There are only eight users, who come often, so that histories have a few hundred behaviours; they are cut
at 300.

Arms: ``interest_softmax``, attention to 8 interests that summarise the history; ``truncated to 100``, the deciding
baseline, full attention to the last hundred; ``full_softmax``, full attention to all 300; ``factored_softmax``, an
approximation of ``full_softmax`` at rank 8; ``linear attention`` (Katharopoulos et al. 2020). Metric: click AUC; ``ms``
is the time of a request with 200 candidates. :mod:`benchmarks.components.comparison` explains the columns, the checks,
and what is held equal for all arms.

The exact part checks that the factored softmax equals the full one on a history of the same rank as the factors, and
that the processor time of attention to interests grows about linearly with N, the number of behaviours, up to 100,000
(``slope in N`` is the exponent). The full run takes a quarter of an hour.

    python -m benchmarks.components --only lifelong [--quick] [--json benchmarks/results/lifelong.json]
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
    """Check identities in float64, and measure the milliseconds of attention by length of the history."""
    torch.manual_seed(0)
    history = torch.randn(1, 3000, RANK).double() @ torch.randn(1, RANK, WIDTH).double()
    queries, mask = torch.randn(1, CANDIDATES, WIDTH).double(), torch.ones(1, 3000, dtype=torch.bool)

    def of(operator: Operator) -> torch.Tensor:
        found: torch.Tensor = LowRankAttention(WIDTH, RANK, operator).double()(queries, history, mask)
        return found

    full = of("full_softmax")
    distance = float((of("factored_softmax") - full).abs().max() / full.abs().max())
    result.at_most(
        "lifelong: relative difference of the factored from the full softmax, on a history of its rank", distance, 1e-10
    )
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
                result.at_most("lifelong: exponent of the time of interests in the number of behaviours", slope, 1.25)
                result.at_least("lifelong: exponent of the time of interests in the number of behaviours", slope, 0.75)


def fastest(attention: LowRankAttention, *inputs: torch.Tensor) -> float:
    """Return the shortest processor time of eight runs, in seconds."""
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
    """Network of the ranker, with linear attention in place of low-rank attention."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        for name in list(self.attention):
            self.attention[name] = LinearAttention()


class LinearRanker(LifelongRanker):
    """Ranker with the network :class:`LinearNetwork`."""

    network_class = LinearNetwork


def arm(kind: type[LifelongRanker] = LifelongRanker, **settings: Any) -> Arm:
    """Return a ranker with these settings as an arm."""
    return ranker_arm(kind, {**SHARED, "history": 300, **settings}, RATES, ["click"])


COMPONENT = Component(
    claim="interests of a long history rank better than its last hundred behaviours",
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
