"""The closed loop on a very small shop: every part is there, and what can be known exactly is right."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from tests.small_shops import WordEmbedder

from taiji.core.errors import ConfigError
from taiji.experiments.settings import ABTestSettings
from taiji.experiments.simulate import MEANS, _Loop, print_abtest, simulate
from taiji.models.ranking.settings import RankerSettings
from taiji.world.settings import ShopSettings

SMALL = ABTestSettings(
    shop=ShopSettings(users=200, tail=200, promoted=8, shown=6),
    ranker=RankerSettings(epochs=1, batch=512, learning_rate=1e-2),
    seeds=2,
    repeats=60,
    resamples=100,
)


@pytest.fixture(scope="module")
def loop():
    return _Loop(SMALL, 0, WordEmbedder())


@pytest.fixture(scope="module")
def found():
    return simulate(SMALL, 0, WordEmbedder())


def test_all_parts_of_the_comparison_are_there(found):
    metrics = {*MEANS, *(f"{metric} (CUPED)" for metric in MEANS), "click rate"}
    assert set(found["ab"]) == set(found["aa"]) == set(found["repeats"]) == metrics
    assert {row["features"] for row in found["offline"]} == {"none", "text"}
    assert {row["estimator"] for row in found["off_policy"]} == {"ips", "snips", "dr"}
    assert {row["metric"] for row in found["replay"]} == set(MEANS)
    assert found["users"] > 30 and "simulated" in found["notes"][0]


def test_intervals_are_right_as_often_as_they_say(found):
    for metric in MEANS:
        assert found["repeats"][metric]["coverage"] > 0.85
        assert found["aa"][metric] < 0.15
    for row in found["ab"].values():
        assert row["always_low"] < row["low"] <= row["difference"] <= row["high"] < row["always_high"]


def test_the_truth_is_the_mean_of_many_draws(loop):
    rng = np.random.default_rng(0)
    for metric in ("clicks", "conversions"):
        drawn = np.mean(
            [loop.draw("text", rng)[metric].mean() - loop.draw("none", rng)[metric].mean() for _ in range(300)]
        )
        assert drawn == pytest.approx(loop.truth(metric), abs=0.03)


def test_visitors_are_new_and_every_request_fills_its_slots(loop):
    first_seen = loop.dataset.events.filter("exposed").group_by("user").agg(first=pl.col("time").min())
    assert first_seen.filter(first_seen["user"].is_in(loop.users))["first"].min() >= loop.cut
    users, items = loop._picks["text"]
    assert len(users) == len(items) == 3 * len(loop._when) and items.max() < 8


def test_features_come_from_before_each_request(loop):
    joined = loop.with_features("text", loop.test)
    assert (joined["feature_as_of"] == joined["time"] - 1).all()


def test_the_same_seed_gives_the_same_result(found, loop):
    """``loop`` trained its own rankers on its own copy of the shop."""
    assert loop.experiment(np.random.default_rng([0, 101])) == found["ab"]


def test_the_result_prints(found, capsys):
    print_abtest(found)
    text = capsys.readouterr().out
    assert "clicks (CUPED)" in text and "users per arm" in text and "…" not in text


def test_rankers_of_clicks_alone_choose_by_clicks():
    clicks = SMALL.model_copy(update={"ranker": RankerSettings(epochs=1, batch=512, tasks=("click",)), "seeds": 1})
    found = simulate(clicks.model_copy(update={"repeats": 2}), 0, WordEmbedder())
    assert len({row["features"] for row in found["replay"]}) == 2
    without = SMALL.model_copy(update={"ranker": RankerSettings(tasks=("conversion",))})
    with pytest.raises(ConfigError, match=r"abtest\.ranker\.tasks"):
        simulate(without, 0, WordEmbedder())
