"""A world follows from its seed, keeps to its formulas, and its twin differs in what it switches alone."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from tests.world.small import coin_surprise, small

from taiji.core.errors import ConfigError, InputError
from taiji.world.laws import sigmoid
from taiji.world.log import run
from taiji.world.observation import Choice
from taiji.world.policies import make_policy
from taiji.world.scenario import Scenario, find_mechanism, load_scenario, scenarios
from taiji.world.world import World

TWINS = [
    (name, f"{part}.{piece}".rstrip("."))
    for name in scenarios()
    for part in load_scenario(name).mechanisms
    for piece in find_mechanism(part).twins
]


@pytest.mark.parametrize("name", scenarios())
def test_equal_seeds_give_equal_bytes(name):
    few = {"users": 40, "items": 230}
    first, again = small(name, **few).log("random", days=1), small(name, **few).log("random", days=1)
    for table in ("items", "users", "events"):
        assert getattr(first, table).equals(getattr(again, table))
    world = small(name, **few)
    world.step(Choice(world.observation.candidates.items[:, :2]))
    assert world.log("random", days=1).events.equals(first.events), "a used world begins again"
    assert not small(name, seed=1, **few).log("random", days=1).events.equals(first.events)


def test_without_mechanisms_clicks_are_those_of_the_formula():
    world = World(Scenario(users=5000, items=50, slate=20, click_bias=-1.5, keenness=0.7))
    exposure = world.truth.simulate(np.arange(5000), np.tile(np.arange(20), (5000, 1)))
    expected = np.repeat(sigmoid(-1.5 + world.traits["keenness"])[:, None], 20, axis=1)
    np.testing.assert_allclose(exposure.expected["click"], expected)
    assert (exposure.outcome["view"] == 1).all() and exposure.outcome["click"].size == 100_000
    assert coin_surprise(exposure.outcome["click"], expected) < 4
    assert set(exposure.outcome) == {"view", "click"}


def test_sessions_and_returns_follow_their_rates():
    world = World(Scenario(users=500, items=50, slate=2, joining=0.0, requests=3, visits=0.5, activity=0.0, diurnal=0))
    totals = sum(np.array([len(e.user), e.context["left"].sum()]) for e in run(world, make_policy("random", world), 8))
    assert totals[0] / totals[1] == pytest.approx(3, rel=0.08)
    assert totals[1] == pytest.approx(500 * 8 * 0.5, rel=0.1)


@pytest.mark.parametrize("name, twin", TWINS, ids=[f"{name}/{twin}" for name, twin in TWINS])
def test_a_twin_shares_every_other_draw(name, twin):
    world = small(name)
    other, part = world.twin(twin), twin.partition(".")[0]
    first, second = world.reset(), other.reset()
    np.testing.assert_array_equal(first.requests.user, second.requests.user)
    np.testing.assert_array_equal(first.candidates.items, second.candidates.items)
    for mechanism, kind in world.mechanisms.items():
        if mechanism != part:
            for key, values in vars(kind).items():
                if isinstance(values, np.ndarray):
                    np.testing.assert_array_equal(vars(other.mechanisms[mechanism])[key], values, f"{mechanism}.{key}")
    users, lists = np.arange(60), np.tile(first.candidates.items[0, :4], (60, 1))
    one, two = world.truth.simulate(users, lists), other.truth.simulate(users, lists)
    touched = {
        "watch": {"watch"}, "comments": {"comment_seconds", "comment_click", "comment_place"}, "network": {"watch"},
        "retention": set(), "creators": set(), "load": set(), "shelf": set(),
    }.get(part)  # fmt: skip
    if touched is not None:  # the others change clicks, and with them what follows
        for key, values in one.outcome.items():
            if key not in touched:
                np.testing.assert_array_equal(two.outcome[key], values, key)
    same = one.expected["click"] == two.expected["click"]
    same &= one.expected["view"] == two.expected["view"]
    np.testing.assert_array_equal(one.outcome["click"][same], two.outcome["click"][same])


@pytest.mark.parametrize(
    "twin, unchanged, changed",
    [
        ("funnel.position", {"unbiased_interest"}, {"view", "click"}),
        ("watch.duration", {"view", "click", "pleased", "unbiased_interest"}, {"watch"}),
        ("satisfaction.selection", {"view", "click", "watch", "pleased"}, set()),
        ("taste", {"view"}, {"click", "unbiased_interest", "pleased"}),
    ],
    ids=["position", "duration", "selection", "taste"],
)
def test_a_twin_changes_the_truth_of_what_it_switches(twin, unchanged, changed):
    world = small("short-video")
    users, lists = np.arange(50), world.reset().candidates.items[:1, :5].repeat(50, axis=0)
    one, two = world.truth.expect(users, lists), world.twin(twin).truth.expect(users, lists)
    for name in unchanged:
        np.testing.assert_array_equal(one[name], two[name], name)
    for name in changed:
        assert (one[name] != two[name]).any(), name


def test_the_twin_of_titles_has_the_same_events():
    world = small("short-video")
    twin = world.twin("content.text")
    log, other = world.log(days=1), twin.log(days=1)
    assert log.events.equals(other.events)
    assert log.items.drop("title").equals(other.items.drop("title"))
    assert (log.items["title"] != other.items["title"]).mean() > 0.8


@pytest.mark.parametrize("name", scenarios())
def test_the_log_up_to_a_time_is_unchanged_by_what_comes_after(name):
    """Neither a longer log nor another policy from then on changes a row before."""

    class Turning:
        def __init__(self, world):
            self.world, self.first, self.then = world, make_policy("random", world), make_policy("popular", world)

        def choose(self, observation, length):
            late = self.world.slot * self.world.slot_days >= 1
            return (self.then if late else self.first).choose(observation, length)

    world = small(name, users=40)
    long, short, turned = world.log("random", 2), world.log("random", 1), world.log(Turning(world), 2)
    end = pl.datetime(2024, 1, 2)
    assert len(short.events)
    before = long.events.filter(pl.col("timestamp") < end)
    assert before.equals(short.events)
    assert turned.events.filter(pl.col("timestamp") < end).equals(before)
    assert not turned.events.equals(long.events)


def test_what_cannot_be_shown_is_an_error():
    world = small("short-video", users=20)
    observation = world.observation
    items = observation.candidates.items
    gone = np.flatnonzero(~observation.available)[:1]
    for wrong, said in (
        (items[:-1] if len(items) > 1 else items[:, 0], "requests"),
        (np.full_like(items, 400), "not available"),
        (np.full_like(items, -2), "not available"),
        (np.where(np.arange(items.shape[1]) == 0, gone, items), "not available"),
        (np.where(np.arange(items.shape[1]) == 1, items[:, :1], items), "twice"),
    ):
        with pytest.raises(InputError, match=said):
            world.step(Choice(wrong))
    with pytest.raises(InputError, match="only items and propensities"):
        world.step(Choice(items, display={"style": np.zeros(items.shape, dtype=int)}))
    with pytest.raises(ConfigError, match=r"funnel\.position"):
        world.twin("funnel.positions")
    with pytest.raises(ConfigError, match="click, "):
        World(world.scenario, reward={"clicks": 1.0}).truth.value(np.arange(2), np.zeros((2, 1), dtype=int))


def test_expecting_twice_is_expecting_once():
    world = small("everything")
    exposure = world.truth.simulate(np.arange(20), np.tile(np.flatnonzero(world.available(0))[:4], (20, 1)))
    first = {name: values.copy() for name, values in exposure.expected.items()}
    for name, values in world.expect(exposure).expected.items():
        np.testing.assert_array_equal(values, first[name], name)


def test_candidates_are_an_even_sample_of_what_is_available():
    world = small("mall", candidates=25)
    counts, expected = np.zeros(400), np.zeros(400)
    surface = world.find(type(world.mechanisms["surfaces"]))
    for _ in range(400):
        observation = world.observation
        shown = observation.candidates.items
        assert all(len(set(row)) == 25 for row in shown.tolist())
        assert observation.available[shown].all()
        pools = np.array(["card", "video", "live"])[surface.item_pool]
        assert (pools[shown] == observation.requests.columns["scenario"][:, None]).all()
        counts += np.bincount(shown.ravel(), minlength=400)
        for pool, size in zip(observation.requests.columns["scenario"], observation.pool):
            expected += (observation.available & (pools == pool)) * (25 / size)
        world.step(Choice(shown[:, :3]))
    often = expected > 5
    assert (abs(counts - expected)[often] < 5 * np.sqrt(expected[often])).all()
