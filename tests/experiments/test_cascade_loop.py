"""A recommender in its world: the logging policy gives the log again, histories grow, and users are their own
controls."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from tests.world.small import small

from taiji.cascade.cascade import Cascade
from taiji.cascade.merging import FusedRanks
from taiji.data.dataset import Dataset
from taiji.experiments.cascade_loop import CascadePolicy, OverCatalogue, serve_world
from taiji.models.retrieval.popularity import Popularity
from taiji.world.policies import make_policy
from taiji.world.world_time import DAY, START

FIRST, DAYS = 2, 4


@pytest.fixture(scope="module")
def world():
    return small("short-video", users=60, visits=1.5)


@pytest.fixture(scope="module")
def log(world):
    return Dataset.from_tables(world.log("random", days=DAYS))


def cascade_of(log):
    start = START + FIRST * DAY
    known = Dataset(**{**vars(log), "events": log.events.filter(pl.col("time") < start)})
    model = Popularity().fit(known, known.events)
    lives: list[Dataset] = []

    def compose(live):
        lives.append(live)
        return Cascade({"popular": model.bound_to(live)}, FusedRanks(("popular",)))

    return known, compose, lives


def test_policies_are_paired_and_the_logging_policy_is_the_log(world, log):
    known, compose, lives = cascade_of(log)
    users = np.arange(0, 60, 2)
    policies = {
        "cascade": lambda of: CascadePolicy(of, known, compose),
        "random": lambda of: make_policy("random", of),
        "oracle": lambda of: OverCatalogue(make_policy("oracle", of)),
    }
    found = serve_world(world, policies, START + FIRST * DAY - 5, DAYS, users, "cascade")
    assert (found["first_day"], found["days"], found["users"]) == (FIRST, 2, 30)
    rows = {(row["policy"], row["metric"]): row for row in found["metrics"]}
    later = log.events.filter(
        (pl.col("time") >= START + FIRST * DAY)
        & (log.users["user_id"].gather(log.events["user"]).is_in(users.tolist()))
        & (pl.col("click") == 1)
    )
    assert rows["random", "click"]["value"] == pytest.approx(len(later) / 30)
    assert rows["oracle", "reward"]["value"] > rows["cascade", "reward"]["value"] > rows["random", "reward"]["value"]
    assert (
        rows["random", "reward"]["difference"]["against"] == "cascade" and "difference" not in rows["cascade", "reward"]
    )

    # What was shown is known from the next midnight on, and nothing later.
    assert [len(live.events) for live in lives] == sorted(len(live.events) for live in lives)
    newest = lives[-1]
    assert len(newest.events) > len(known.events)
    assert newest.events["time"].max() < START + (DAYS - 1) * DAY and newest.events["event"].to_list() == list(
        range(len(newest.events))
    )
    assert newest.events["time"].is_sorted()

    narrow = serve_world(world, policies, START + FIRST * DAY - 5, DAYS, users, "cascade", resamples=50, level=0.5)
    for row in narrow["metrics"]:
        before = rows[row["policy"], row["metric"]]
        for one, other in ((before, row), (before.get("difference"), row.get("difference"))):
            assert not one or one["low"] is None or one["high"] - one["low"] >= other["high"] - other["low"]


def test_a_list_holds_available_items_alone_and_is_filled_up(world, log):
    known, compose, _ = cascade_of(log)
    world.reset()
    policy = CascadePolicy(world, known, compose)
    for _ in range(3):
        observation = world.observation
        chosen = policy.choose(observation, 10).items
        assert observation.available[chosen].all() and all(len(set(row)) == 10 for row in chosen.tolist())
        exposure = world.step(policy.choose(observation, 10))
        policy.learn(exposure)
    assert sum(len(frame) for frame in policy._shown) == 0, "what the log holds is not learnt twice"
