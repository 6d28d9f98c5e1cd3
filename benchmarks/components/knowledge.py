"""Does a ranker gain from knowledge in chunks if half of the chunks are about another user (KSER)?

In the world ``short-video``, tastes determine clicks; in the twin, they make no difference. Each row has a vector of
four chunks. A chunk is the long-term taste of the row's user with noise, as a good rationale would describe it, or,
with probability one half, that of another user (a *planted* chunk).

Arms: ``kser``, which weights the chunks; ``nothing``, the deciding baseline, without the vector; ``no null chunk``,
KSER without the empty chunk that can take up weight; ``vector as it is``, one linear layer over the vector;
``experts``, KAR's experts over it. Metric: click AUC. For KSER it is also reported how well a chunk's weight separates
true chunks from planted ones (``true chunks told by their weight``, an AUC), and the standard deviation of the weights.
All arms have about the same number of parameters. :mod:`benchmarks.components.comparison` explains the columns, the
checks, and what is held equal for all arms.

    python -m benchmarks.components --only knowledge [--quick] [--json benchmarks/results/knowledge.json]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.components.comparison import TWIN, Arm, Component, Outcome
from benchmarks.components.ranking_worlds import TRAINING, RankingLog, areas, dense_parameters, parts_in_time
from taiji.data.dataset import Dataset
from taiji.metrics.ranking_metrics import auc
from taiji.models.ranking.knowledge import KnowledgeRanker
from taiji.models.ranking.ranker import Ranker
from taiji.models.ranking.target_attention import TargetAttentionRanker
from taiji.testing import exposures_of
from taiji.world import World
from taiji.world.mechanisms.taste import Taste

Array = NDArray[Any]
CHUNKS, NOISE = 4, 0.1
RATES = ({"learning_rate": 2e-3}, {"learning_rate": 6e-3})
SHARED = {**TRAINING, "min_steps": 100, "pair_fields": (), "device": "cpu", "history": 5, "bins": 3}


@dataclass(frozen=True)
class ToldLog:
    """A log whose rows have vectors, and a mask (N, C) of the test rows' chunks that are about the row's own user."""

    log: RankingLog
    true: Array


def data(place: str, seed: int, quick: bool) -> ToldLog:
    """Return a log whose rows have vectors. Half of the chunks are about another user."""
    sizes = {"users": 12, "items": 40, "days": 3} if quick else {"users": 250, "items": 300, "days": 8}
    world = World("short-video", seed, **sizes)
    tastes = world.find(Taste).long  # before the twin is made: both have the same knowledge
    if place == TWIN:
        world = world.twin("taste")
    dataset = Dataset.from_tables(world.log())
    rows = exposures_of(dataset).sort("time", maintain_order=True)
    random = np.random.default_rng(seed)
    user = dataset.users["user_id"].to_numpy()[rows["user"].to_numpy()]
    true = random.random((len(rows), CHUNKS)) < 0.5
    whose = np.where(true, user[:, None], random.integers(0, len(tastes), true.shape))
    told = tastes[whose] + NOISE * random.normal(size=(*true.shape, tastes.shape[1]))
    rows = rows.with_columns(
        row=pl.int_range(len(rows)), vector=pl.Series(told.reshape(len(rows), -1).tolist(), dtype=pl.List(pl.Float32))
    )
    log = parts_in_time(dataset, rows)
    return ToldLog(log, true[log.test["row"].to_numpy()])


def arm(kind: type[Ranker], **fixed: Any) -> Arm:
    """Return an arm of a ranker. Its configuration is chosen by the click AUC of validation rows."""

    def run(given: ToldLog, configuration: Mapping[str, Any], seed: int) -> Outcome:
        log = given.log
        ranker = kind(kind.Settings(**{**SHARED, **fixed, **configuration}))
        ranker.fit(log.dataset, log.train, valid=log.valid, seed=seed)
        found = areas(ranker, log.test, ["click"])
        if isinstance(ranker, KnowledgeRanker):
            weights = ranker.chunk_weights(log.test)
            found["true chunks told by their weight (auc)"] = auc(given.true.ravel().astype(int), weights.ravel())
            found["spread of weights"] = float(weights.std())
        return Outcome(areas(ranker, log.valid, ["click"])["auc"], found, dense_parameters(ranker.network))

    return Arm(run, RATES)


COMPONENT = Component(
    claim="weighted and aligned chunks rank better than no knowledge",
    metric="auc",
    arms={
        "kser": arm(KnowledgeRanker, hidden=(48, 32), kinds={"vector": CHUNKS}),
        "nothing": arm(TargetAttentionRanker, hidden=(52, 32), text="none"),
        "no null chunk": arm(KnowledgeRanker, hidden=(48, 32), kinds={"vector": CHUNKS}, null_chunk=False),
        "vector as it is": arm(TargetAttentionRanker, hidden=(44, 32), text="projection", text_width=8),
        "experts": arm(TargetAttentionRanker, hidden=(30, 24), text="experts", text_width=8),
    },
    data=data,
)
