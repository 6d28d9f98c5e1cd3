"""Value of lists from a log with propensities: exact by hand, right on average, and silent where the log says
nothing."""

import numpy as np
import pytest
from tests.world.small import small

from taiji.core.component import Requests
from taiji.data.dataset import Dataset
from taiji.experiments.list_value import LoggedLists, list_values, logged_lists


def test_by_hand():
    # Two requests that saw two of four items each, evenly chosen.
    logged = LoggedLists(
        Requests([0, 1], [5, 5]),
        row=np.array([0, 0, 1, 1]),
        item=np.array([0, 1, 2, 3]),
        reward=np.array([1.0, 0.0, 1.0, 0.0]),
        propensity=np.full(4, 0.25),
    )
    found = list_values(logged, {"mine": np.array([[0, 2], [0, 1]]), "none": np.array([[9, -1], [9, -1]])}, "mine")
    mine, none = found["arms"]
    # one exposure in common, with weight (1/2) / (1/4): 2 * 1 / 4
    assert mine["matched"] == 1 and mine["mean_weight"] == 0.5
    assert mine["ips"]["value"] == pytest.approx(0.5) and mine["snips"]["value"] == pytest.approx(1.0)
    assert mine["gain"]["value"] == pytest.approx(0.5 - 0.5) and found["logged"]["value"] == 0.5
    assert mine["ips"]["low"] is None and "overlap" in mine["ips"]["reason"], "one exposure bears no interval"
    assert none["snips"]["value"] is None and none["difference"]["value"] is None


def test_lists_of_the_best_are_worth_what_they_are_in_truth():
    random, n, k, items = np.random.default_rng(0), 4000, 5, 20
    rate = np.linspace(0.02, 0.4, items)
    shown = np.stack([random.permutation(items)[:k] for _ in range(n)])
    logged = LoggedLists(
        Requests(np.arange(n) % 800, np.arange(n)),
        row=np.repeat(np.arange(n), k),
        item=shown.ravel(),
        reward=(random.random(n * k) < rate[shown.ravel()]).astype(float),
        propensity=np.full(n * k, 1 / items),
    )
    best = np.tile(np.arange(items - k, items), (n, 1))
    found = list_values(logged, {"best": best, "worst": np.tile(np.arange(k), (n, 1))}, "best")
    for arm, truth in zip(found["arms"], (rate[-k:].mean(), rate[:k].mean())):
        assert arm["mean_weight"] == pytest.approx(1, abs=0.05)
        assert arm["ips"]["low"] < truth < arm["ips"]["high"] and arm["snips"]["low"] < truth < arm["snips"]["high"]
    assert found["arms"][0]["gain"]["low"] > 0 and found["arms"][1]["difference"]["high"] < 0


def test_a_world_s_log_gives_its_lists_and_another_log_gives_none():
    log = Dataset.from_tables(small("short-video", users=40).log("random", days=2))
    start = int(log.events["time"][len(log.events) // 2])
    found = logged_lists(log, start, 10, seed=1)
    assert found is not None and len(found.requests) == 10 and (found.requests.time >= start).all()
    rows = log.events.filter(
        (log.events["user"] == found.requests.user[3]) & (log.events["time"] == found.requests.time[3])
    )
    assert sorted(found.item[found.row == 3]) == sorted(rows["item"].to_list())
    assert sorted(found.reward[found.row == 3]) == sorted(rows["click"].to_list())
    again = logged_lists(log, start, 10, seed=1)
    assert again is not None and again.requests.user.tolist() == found.requests.user.tolist()
    assert logged_lists(log, int(log.events["time"].max()) + 1, 10, seed=1) is None


def test_a_log_without_propensities_has_no_value(tmp_path):
    from taiji.testing import checkerboard

    assert logged_lists(checkerboard(), 0, 10, seed=0) is None


def test_the_activity_of_users_is_no_error():
    """Users with many and few requests, and the same chance of a click: the width is that of independent requests."""
    random = np.random.default_rng(0)
    user = np.repeat(np.arange(300), random.geometric(0.2, 300))
    n = len(user)
    logged = LoggedLists(
        Requests(user, np.full(n, 5)),
        row=np.arange(n),
        item=np.zeros(n, int),
        reward=(random.random(n) < 0.3).astype(float),
        propensity=np.full(n, 0.5),
    )
    found = list_values(logged, {"mine": np.zeros((n, 1), int)}, "mine")["logged"]
    assert found["high"] - found["low"] == pytest.approx(3.92 * (0.3 * 0.7 / n) ** 0.5, rel=0.25)
