"""Bait is watched and regretted; few are asked, and those who answer are not everybody."""

from __future__ import annotations

import numpy as np
from tests.world.small import coin_surprise, small

from taiji.world.mechanisms.satisfaction import Satisfaction

N = 20_000


def draws(world):
    return world.truth.simulate(np.arange(N) % world.scenario.users, np.tile(np.arange(10), (N, 1)))


def loud(**changes):
    base = small("short-video", users=1000)
    settings = base.scenario.model_dump()["mechanisms"]
    settings["satisfaction"] = {"asked": 0.3, "answers": 0.3, "selection": 0.5, **changes}
    return type(base)(base.scenario, 0, mechanisms=settings)


def test_as_many_are_asked_and_answer_as_is_said():
    drawn = draws(small("short-video", users=1000))
    viewed = drawn.outcome["view"] == 1
    asked = drawn.outcome["asked"] == 1
    assert coin_surprise(asked[viewed], np.full(int(viewed.sum()), 0.005)) < 4 and not asked[~viewed].any()
    assert np.isfinite(drawn.outcome["satisfied"]).sum() < 0.03 * asked.sum()


def test_the_satisfied_answer_more_often_and_not_so_in_the_twin():
    world = loud()
    for twin, lean in ((world, 0.5), (world.twin("satisfaction.selection"), 0.0)):
        drawn = draws(twin)
        asked, pleased = drawn.outcome["asked"] == 1, drawn.outcome["pleased"] == 1
        answered = np.isfinite(drawn.outcome["satisfied"])
        for who, chance in ((pleased, 0.3 * (1 + lean)), (~pleased, 0.3 * (1 - lean))):
            asked_here = answered[asked & who]
            assert coin_surprise(asked_here, np.full(len(asked_here), chance)) < 4
        assert (drawn.outcome["satisfied"][answered] == pleased[answered]).all()


def test_bait_lures_holds_and_disappoints():
    world = loud()
    bait = world.find(Satisfaction).bait[:10]
    users = np.arange(500)
    expected = world.truth.expect(users.repeat(10), np.tile(np.arange(10), 500))
    plain = world.twin("satisfaction").truth.expect(users.repeat(10), np.tile(np.arange(10), 500))

    def change(name):
        gain = np.log(expected[name] / plain[name]).reshape(500, 10).mean(axis=0)
        return np.corrcoef(gain, bait)[0, 1]

    assert change("click") > 0.9 and change("watch") > 0.9 and change("pleased") < -0.9
