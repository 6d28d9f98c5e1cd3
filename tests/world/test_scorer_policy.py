"""A ranker that was trained on a world's log serves in the world, and earns more than chance."""

from __future__ import annotations

import numpy as np
import pytest
from tests.world.small import small

from taiji.core.errors import InputError
from taiji.data.dataset import Dataset
from taiji.models.ranking.dcn import DCNRanker
from taiji.testing import exposures_of
from taiji.world.scorer_policy import ScorerPolicy


class Favourite:
    """A scorer that likes small ids of its dataset, and remembers what it was asked."""

    def __init__(self):
        self.asked = []

    def encode(self, requests):
        self.asked.append(requests)
        return requests

    def score(self, state, slate):
        assert (np.diff((slate.items == -1).astype(int), axis=1) >= 0).all(), "padding comes last"
        return {"click": -1.0 * slate.items}


def test_ids_are_those_of_the_log_and_what_it_does_not_know_comes_last():
    world = small("mall", users=60)
    log = Dataset.from_tables(world.log("random", days=2))
    known, scorer = set(log.items["item_id"].to_list()), Favourite()
    assert len(known) < 400
    policy = ScorerPolicy(world, scorer, log)
    while world.slot * world.slot_days < 6:
        world.step(policy.choose(world.observation, 3))
    observation = world.observation
    chosen = policy.choose(observation, 40).items
    for row, offered in zip(chosen.tolist(), observation.candidates.items.tolist()):
        there = [item for item in row if item != -1]
        assert there[: len(known & set(offered))] == sorted(known & set(offered))
    np.testing.assert_array_equal(scorer.asked[-1].columns["scenario"], observation.requests.columns["scenario"])
    with pytest.raises(InputError, match="does not belong to this world"):
        ScorerPolicy(small("mall", users=30), scorer, log)


@pytest.mark.integration
def test_a_ranker_of_the_log_earns_more_than_chance():
    world = small("mall", users=150, items=200, visits=2.0)
    log = Dataset.from_tables(world.log("random", days=4))
    settings = DCNRanker.Settings(epochs=2, min_steps=150, hidden=(16,), dimension=8, history=10, device="cpu")
    ranker = DCNRanker(settings).fit(log, exposures_of(log), seed=0)
    fresh = small("mall", users=150, items=200, visits=2.0)
    earned = [
        fresh.log(policy, days=2).events["click"].mean() for policy in ("random", ScorerPolicy(fresh, ranker, log))
    ]
    assert earned[1] > 1.2 * earned[0]
