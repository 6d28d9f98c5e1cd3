"""Do a few questionnaire answers help to rank satisfying items higher where clicks mislead (EASQ)?

In the world ``short-video``, clickbait attracts clicks but disappoints users; in the twin, it has no effect. The
scenario asks its users so seldom that a log of this size would contain only a handful of answers. Here, users are asked
more often and answer more often, so that the log has as many answers as one that is 200 times as large.

Metric: ``satisfaction ndcg``, the NDCG@5 of the served score within test lists; the gain of an item is the world's
probability that viewing it satisfies the user. Click AUC is also reported. EASQ learns the answers in a path of its
own, and aligns the served score with it. Arms, with equally many weights and the same answers: ``easq``, aligned on
pairs of answers; ``no questionnaire``, the deciding baseline, ignores the answers; ``extra task`` learns them as a
further task of the shared path; ``answers order what is served`` lets them order the served score directly, by a
pairwise loss; ``easq, pairs of exposures`` is aligned on pairs of exposures instead of answers.
:mod:`benchmarks.components.comparison` explains the columns, the checks, and what is held equal for all arms.

    python -m benchmarks.components --only satisfaction [--quick] [--json benchmarks/results/satisfaction.json]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from benchmarks.components.comparison import TWIN, Arm, Component, Outcome
from benchmarks.components.ranking_worlds import TRAINING, RankingLog, areas, dense_parameters, parts_in_time
from taiji.data.dataset import Dataset
from taiji.models.ranking.satisfaction_path import (
    SERVED,
    SatisfactionLoss,
    SatisfactionNetwork,
    SatisfactionRanker,
    answer_pairs,
)
from taiji.testing import exposures_of
from taiji.world import World
from taiji.world.scenario import load_scenario

Array = NDArray[Any]
PLACES = 5
ASKED = {"asked": 0.3, "answers": 0.05}
RATES = ({"learning_rate": 2e-3}, {"learning_rate": 6e-3})
SHARED = {**TRAINING, "min_steps": 100, "hidden": (24, 16), "pair_fields": (), "device": "cpu"}


@dataclass(frozen=True)
class SurveyedLog:
    """A log, and the world's probability of satisfaction for each validation and test row."""

    log: RankingLog
    valid: Array
    test: Array


class Joined(SatisfactionNetwork):
    """Network with equally many weights, but without stopped gradients: satisfaction is a further task of the shared
    path."""

    def paths(self, flat: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return one path twice."""
        found = self.first(flat) + self.up(self.down(flat))
        return found, found


class Pooled(SatisfactionLoss):
    """Loss by which pairs of answers order the served score itself."""

    def satisfied(self, outputs: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
        """Return the mean pairwise loss of the served score over pairs of answers."""
        pairs = functional.softplus(outputs[:, -1])[answer_pairs(answers)]
        return self.weight * functional.softplus(pairs[:, 1] - pairs[:, 0]).sum() / max(len(pairs), 1)


class JoinedRanker(SatisfactionRanker):
    """Ranker with the network :class:`Joined`."""

    network_class = Joined


class PooledRanker(JoinedRanker):
    """Ranker with the loss :class:`Pooled`."""

    def build(self, *arguments: Any, **named: Any) -> PooledRanker:
        """Make the network, and the loss of this arm."""
        super().build(*arguments, **named)
        self.loss = Pooled(self.tasks, self.settings)
        return self


def data(place: str, seed: int, quick: bool) -> SurveyedLog:
    """Return a log, and the truth about its validation and test rows."""
    sizes = {"users": 20, "items": 60, "days": 4} if quick else {"users": 400, "items": 300, "days": 10}
    scenario = load_scenario("short-video", **sizes)
    often = scenario.mechanisms["satisfaction"].model_copy(update=ASKED)
    world = World(scenario.model_copy(update={"mechanisms": {**scenario.mechanisms, "satisfaction": often}}), seed)
    if place == TWIN:
        world = world.twin("satisfaction")
    dataset = Dataset.from_tables(world.log())
    log = parts_in_time(dataset, exposures_of(dataset))

    def pleased(rows: Any) -> Array:
        # the ids of this source are the world's indices
        users, items = (
            table[name].to_numpy()[rows[column].to_numpy()]
            for table, name, column in ((dataset.users, "user_id", "user"), (dataset.items, "item_id", "item"))
        )
        found = world.truth.expect(users, items, rows["time"].to_numpy())
        return np.asarray((found["pleased"] / found["view"])[:, 0])

    return SurveyedLog(log, pleased(log.valid), pleased(log.test))


def ndcg(scores: Array, gains: Array, lists: Array) -> float:
    """Return the mean NDCG at :data:`PLACES` over lists of at least two items.

    Args:
        scores, gains: (N,).
        lists: (N,) ids of lists.
    """
    discount = 1 / np.log2(np.arange(PLACES) + 2)
    found = []
    order = np.argsort(lists, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(lists[order])) + 1):
        if len(rows) > 1:
            own = gains[rows][np.argsort(-scores[rows], kind="stable")][:PLACES]
            best = np.sort(gains[rows])[::-1][:PLACES]
            found.append(float((own * discount[: len(own)]).sum() / (best * discount[: len(best)]).sum()))
    return float(np.mean(found))


def arm(kind: type[SatisfactionRanker], **fixed: Any) -> Arm:
    """Return an arm of a ranker. Its configuration is chosen by the NDCG of validation lists."""

    def run(given: SurveyedLog, configuration: Mapping[str, Any], seed: int) -> Outcome:
        ranker = kind(kind.Settings(**{**SHARED, **fixed, **configuration}))
        ranker.fit(given.log.dataset, given.log.train, valid=given.log.valid, seed=seed)

        def quality(rows: Any, truth: Array) -> float:
            return ndcg(ranker.predict(rows)[SERVED.name].to_numpy(), truth, rows["list_id"].to_numpy())

        answers = given.log.train["satisfied"].drop_nulls().len()
        return Outcome(
            quality(given.log.valid, given.valid),
            {
                "satisfaction ndcg": quality(given.log.test, given.test),
                "auc click": areas(ranker, given.log.test, ["click"])["auc"],
                "answers in training": float(answers),
            },
            dense_parameters(ranker.network),
        )

    return Arm(run, RATES)


COMPONENT = Component(
    claim="an isolated path with alignment ranks satisfying items higher than behaviour alone",
    metric="satisfaction ndcg",
    arms={
        "easq": arm(SatisfactionRanker, alignment_weight=0.5),
        "no questionnaire": arm(SatisfactionRanker, satisfaction_weight=0.0, alignment_weight=0.0),
        "extra task": arm(JoinedRanker, alignment_weight=0.0),
        "answers order what is served": arm(PooledRanker, alignment_weight=0.0),
        "easq, pairs of exposures": arm(SatisfactionRanker, alignment_weight=0.5, aligned="exposures"),
    },
    data=data,
)
