"""The A/B test of a world: arms alike before it, estimates around the truth, and designs that say what they miss."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tests.world.small import small

from taiji.cli.world_commands import print_closed_loop
from taiji.core.errors import ConfigError
from taiji.experiments.closed_loop import Arms, ClosedLoopSettings, closed_loop
from taiji.world.log import run
from taiji.world.mechanisms.content import Content
from taiji.world.mechanisms.creators import Creators
from taiji.world.observation import Choice
from taiji.world.policies import make_policy

SHORT = ClosedLoopSettings(before=1, days=2, splits=20)


@pytest.fixture(scope="module")
def found():
    return closed_loop(small("mall", users=240, visits=1.5), "random", "oracle", SHORT)


def test_a_better_policy_is_found_better_and_the_truth_lies_in_the_interval(found):
    reward = found["ab"]["reward (CUPED)"]
    assert reward["truth"] > 6 * reward["truth_error"] > 0
    assert 0 < reward["low"] < reward["truth"] < reward["high"]
    assert reward["always_low"] < reward["low"] < reward["high"] < reward["always_high"]
    plain = found["ab"]["reward"]
    assert reward["high"] - reward["low"] < plain["high"] - plain["low"], "CUPED narrows"
    assert {"click", "buy", "requests", "active_days"} <= found["ab"].keys()
    assert sum(found["users"].values()) == 240 and 0 < found["new_users"] < 200
    assert found["new"]["reward"]["n"] == found["new_users"]


def test_days_add_up(found):
    last = found["by_day"][-1]["cumulative"]
    assert len(found["by_day"]) == 2
    assert sum(row["truth"] for row in found["by_day"]) == pytest.approx(last["truth"])
    assert last["difference"] == pytest.approx(found["ab"]["reward"]["difference"])
    assert found["plan"]["users_an_arm"] < 240 and found["plan"]["power_here"] > 0.8
    assert found["plan"]["minimum_effect"] < found["plan"]["effect"]


def test_equal_policies_have_no_effect_and_few_significant_tests():
    same = closed_loop(small("push", users=300), "content", "content", SHORT)
    assert all(row["truth"] == 0 for row in same["ab"].values())
    assert max(same["aa"].values()) <= 0.2 and same["aa_any_look"] <= 0.1
    assert same["plan"]["users_an_arm"] is None
    again = closed_loop(small("push", users=300), "content", "content", SHORT)
    assert again == same


def test_what_was_found_is_json_also_where_nothing_happened():
    found = closed_loop(small("shop", users=30), "random", "popular", SHORT.model_copy(update={"days": 1}))
    assert json.loads(json.dumps(found, allow_nan=False))["scenario"] == "shop"


@pytest.mark.parametrize("sizes", [{"users": 10, "visits": 0.3}, {"users": 30, "visits": 0.005}], ids=["few", "idle"])
def test_a_metric_that_allows_no_test_is_left_out(sizes, capsys):
    found = closed_loop(small("mall", **sizes), "random", "popular", SHORT.model_copy(update={"days": 1}))
    assert all(share is None for share in found["aa"].values())
    assert (found["plan"]["minimum_effect"] is None) == (found["plan"]["deviation"] == 0)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    print_closed_loop(found)
    assert "random" in capsys.readouterr().out


def test_before_the_test_both_arms_are_served_alike():
    logs = []
    for policies in (("popular", "oracle"), ("content", "random")):
        world = small("mall", users=100)
        arms = Arms(world, policies, np.arange(100) % 2 == 0, start=2)
        logs.append([(e.user.tolist(), e.items.tolist()) for e in run(world, arms, 2)])
    assert logs[0] == logs[1]


def test_co_diverted_users_see_the_creators_of_their_arm_alone():
    world = small("creators", users=60)
    content = world.find(Content)
    treated, creator_arm = np.arange(60) % 2 == 0, np.arange(content.settings.creators) % 3 == 0
    arms = Arms(world, ("random", "popular@0.5"), treated, 1, creator_arm[content.creator])
    during = 0
    for exposure in run(world, arms, 2):
        if exposure.slot >= 12:
            shown = creator_arm[content.creator[exposure.safe_items]] == treated[exposure.user][:, None]
            assert shown[exposure.shown].all()
            during += int(exposure.shown.sum())
    assert during > 200 and world.find(Creators).total.sum() > during


def test_shared_creators_are_noted_and_can_be_assigned():
    short = SHORT.model_copy(update={"days": 1})
    settings = short.model_copy(update={"co_diverted": True})
    world = small("creators", users=60)
    shared, split = closed_loop(world, "random", "popular", short), closed_loop(world, "random", "popular", settings)
    assert any("share creators" in note for note in shared["notes"]) and "creators" not in shared
    assert split["creators"]["metric"] == "uploads" and split["creators"]["n"] == 300
    assert split["creators"]["same_policy"]["n"] == 300
    with pytest.raises(ConfigError, match="mechanism creators"):
        closed_loop(small("mall"), "random", "popular", settings)


def test_arms_that_decide_different_things_are_an_error():
    class Styled:
        def __init__(self, world):
            self.inner = make_policy("random", world)

        def choose(self, observation, length):
            items = self.inner.choose(observation, length).items
            return Choice(items, display={"style": np.zeros(items.shape, dtype=int)})

    world = small("push", users=200)
    arms = Arms(world, ("random", "content"), np.arange(200) % 2 == 0, 0)
    arms.policies = (make_policy("random", world), Styled(world))
    with pytest.raises(ConfigError, match="makes a decision"):
        for _ in run(world, arms, 1):
            pass
