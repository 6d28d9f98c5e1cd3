"""Wordings add to the click, and some lure and let down."""

from __future__ import annotations

import numpy as np
import pytest

from taiji.core.errors import ConfigError, InputError
from taiji.testing import check_world
from taiji.world import World, grammar
from taiji.world.laws import logit
from taiji.world.mechanisms.wording import WORDINGS, Wording
from taiji.world.observation import Choice
from taiji.world.scenario import load_scenario


def worded(seed: int = 1, **sizes: int) -> World:
    sizes = {"users": 100, "items": 300} | sizes
    mechanisms = {**load_scenario("push").mechanisms, "wording": {}}
    return World(load_scenario("push", mechanisms=mechanisms, **sizes), seed)


def test_a_wording_adds_its_utility_to_the_logit_and_none_in_the_twin():
    world, users, items = worded(), np.arange(50), np.zeros((50, 1), dtype=int)

    def clicks(where: World, wording: int) -> np.ndarray:
        display = {"style": np.full((50, 1), 2), "wording": np.full((50, 1), wording)}
        return where.truth.expect(users, items, display=display)["click"][:, 0]

    utility = world.find(Wording).utility[2]
    for wording in (5, WORDINGS - 1):
        np.testing.assert_allclose(
            logit(clicks(world, wording)) - logit(clicks(world, 0)), utility[wording] - utility[0]
        )
        np.testing.assert_array_equal(clicks(world.twin("wording"), wording), clicks(world.twin("wording"), 0))


def test_what_lures_is_kept_less_often_and_no_longer_in_the_twin_without_promises():
    world = worded()
    order = np.argsort(world.find(Wording).promise)
    displays = [{"style": np.zeros((50, 1), int), "wording": np.full((50, 1), order[end])} for end in (0, -1)]

    def kept(where: World) -> list[float]:
        found = [where.truth.expect(np.arange(50), np.zeros((50, 1), int), display=display) for display in displays]
        return [float((one["kept"] / one["click"]).mean()) for one in found]

    modest, loud = kept(world)
    assert modest > loud + 0.2
    assert len(set(kept(world.twin("wording.promise")))) == 1


def test_the_copy_is_written_in_its_wording_and_wordings_are_even_where_nobody_chooses():
    world = worded(users=400)
    events = world.log("random", days=3).events
    assert np.allclose(events["wording_propensity"].to_numpy(), 1 / WORDINGS)
    assert events["wording"].n_unique() == WORDINGS and set(events["kept"].unique()) == {0, 1}
    assert events.filter(events["kept"] == 1)["click"].min() == 1
    row = events.filter((events["wording"] == 9) & (events["style_name"] == "question")).row(0, named=True)
    assert row["copy"].startswith("Just in. Do you know this") and row["copy"].endswith("? See inside.")
    assert len(grammar.OPENINGS) * len(grammar.CLOSINGS) == WORDINGS == 64


def test_wrong_wordings_and_a_world_without_copy_are_rejected():
    world = worded()
    items = world.reset().candidates.items[:, :1]
    with pytest.raises(InputError, match="0 to 63"):
        world.step(Choice(items, display={"wording": np.full(items.shape, 64)}))
    with pytest.raises(ConfigError, match="copy"):
        World(load_scenario("push", users=50, items=60, mechanisms={"content": {}, "wording": {}}), 0)


def test_a_world_with_wordings_keeps_the_contract():
    check_world(worded, draws=1000)
