"""Data and arms of the components that are rankers: logs of simulated worlds, split by time, and rankers as arms."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from torch import nn

from benchmarks.components.comparison import TWIN, Arm, Outcome
from taiji.core.component import Requests, Slate
from taiji.data.dataset import Dataset
from taiji.data.tasks import labels
from taiji.metrics.ranking_metrics import auc
from taiji.models.ranking.default_fields import settled
from taiji.models.ranking.ranker import Ranker
from taiji.testing import exposures_of
from taiji.world import World

PARTS = (0.6, 0.75)
"""Ends of the training and validation parts, as shares of the exposures in time order. The rest is the test part."""

TRAINING = {
    "dropout": 0.1,
    "patience": 2,
    "checks": 6,
    "weight_decay": 1e-5,
    "embedding_rate": 0.05,
    "embedding_decay": 1e-3,
    "epochs": 1,
    "batch": 512,
}
"""Training settings of every arm that is a ranker. They do not change with the defaults of the rankers. Each component
adds numbers of steps and learning rates."""


@dataclass(frozen=True)
class RankingLog:
    """Log of a world, and its exposures in three parts by time."""

    dataset: Dataset
    train: pl.DataFrame
    valid: pl.DataFrame
    test: pl.DataFrame


def ranking_log(scenario: str, twin: str, **sizes: Any) -> Callable[[str, int, bool], RankingLog]:
    """Return the function ``data`` of a component: logs of a scenario, and of its twin.

    Args:
        scenario: name of the scenario.
        twin: mechanism that makes no difference in the twin.
        sizes: sizes of the scenario. Those that begin with ``quick_`` replace the others in a quick run.
    """

    def data(place: str, seed: int, quick: bool) -> RankingLog:
        whole = {key: value for key, value in sizes.items() if not key.startswith("quick_")}
        if quick:
            whole |= {key.removeprefix("quick_"): value for key, value in sizes.items() if key.startswith("quick_")}
        world = World(scenario, seed, **whole)
        dataset = Dataset.from_tables((world.twin(twin) if place == TWIN else world).log())
        return parts_in_time(dataset, exposures_of(dataset))

    return data


def parts_in_time(dataset: Dataset, exposures: pl.DataFrame) -> RankingLog:
    """Return exposures of a log, split by time at :data:`PARTS`."""
    rows = exposures.sort("time", maintain_order=True)
    ends = [int(rows["time"][int(share * len(rows))]) for share in PARTS]
    when = pl.col("time")
    return RankingLog(
        dataset,
        rows.filter(when < ends[0]),
        rows.filter((when >= ends[0]) & (when < ends[1])),
        rows.filter(when >= ends[1]),
    )


def ranker_arm(
    kind: type[Ranker], fixed: Mapping[str, Any], tried: Sequence[Mapping[str, Any]], heads: Sequence[str] | None = None
) -> Arm:
    """Return a ranker as an arm.

    All arms read the same fields, because a field is kept even if it does not lower the loss. The metrics are ``auc``,
    ``auc NAME`` of each prediction, and ``ms``, the median milliseconds of one request with 200 candidates.

    Args:
        kind: class of the ranker.
        fixed: settings of all configurations.
        tried: further settings of each configuration.
        heads: predictions whose mean AUC is ``auc``; None takes all probabilities.
    """

    def run(data: RankingLog, configuration: Mapping[str, Any], seed: int) -> Outcome:
        settings = settled(kind.Settings(**{"device": "cpu", **fixed, **configuration}), ())
        ranker = kind(settings)
        ranker.fit(data.dataset, data.train, valid=data.valid, seed=seed)
        found = areas(ranker, data.test, heads)
        validation = areas(ranker, data.valid, heads)["auc"]
        return Outcome(validation, {**found, "ms": milliseconds(ranker, data)}, dense_parameters(ranker.network))

    return Arm(run, tuple(tried))


def areas(ranker: Ranker, rows: pl.DataFrame, heads: Sequence[str] | None) -> dict[str, float]:
    """Return the AUC of each probability on the rows with a known label, and the mean of these as ``auc``."""
    known, predicted = labels(rows, ranker.tasks), ranker.predict(rows)
    probabilities = [head for task in ranker.tasks if task.kind == "binary" for head in task.heads]
    found = {}
    for head in heads or probabilities:
        there = np.isfinite(known[head])
        if len(np.unique(known[head][there])) == 2:
            found[f"auc {head}"] = auc(known[head][there], predicted[head].to_numpy()[there])
    return {"auc": float(np.mean(list(found.values()))), **found}


def milliseconds(ranker: Ranker, data: RankingLog, candidates: int = 200, repeats: int = 5) -> float:
    """Return the median milliseconds to encode and score one request."""
    row = data.test.tail(1)
    columns = {name: row[name].to_numpy() for name in data.dataset.event_columns.context if name in row.columns}
    request = Requests(row["user"].to_numpy(), row["time"].to_numpy(), columns)
    slate = Slate(np.resize(np.arange(data.dataset.n_items), candidates)[None])
    taken = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        ranker.score(ranker.encode(request), slate)
        taken.append(time.perf_counter() - start)
    return 1e3 * float(np.median(taken[1:]))


def dense_parameters(network: nn.Module) -> int:
    """Return the number of weights outside embedding tables. The tables are the same for all rankers."""
    tables = {id(module.weight) for module in network.modules() if isinstance(module, nn.Embedding)}
    return sum(weight.numel() for weight in network.parameters() if id(weight) not in tables)
