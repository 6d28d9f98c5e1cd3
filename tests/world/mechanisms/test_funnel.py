"""Views, clicks, carts and purchases by their formulas."""

from __future__ import annotations

import numpy as np
import pytest
from tests.world.small import coin_surprise, small, surprise

from taiji.world.laws import sigmoid, unit
from taiji.world.mechanisms.content import Content
from taiji.world.mechanisms.funnel import Funnel, crowding


def test_crowding_is_the_mean_cosine_with_the_others():
    vectors = unit(np.random.default_rng(0).random((5, 4, 6)))
    shown = np.array([[True] * 4] * 4 + [[True, True, False, False]])
    found = crowding(vectors, shown)
    for row in range(5):
        there = np.flatnonzero(shown[row])
        for i in range(4):
            others = [j for j in there if j != i]
            expected = np.mean([vectors[row, i] @ vectors[row, j] for j in others]) if i in there else 0.0
            assert found[row, i] == pytest.approx(expected)
    assert (crowding(vectors[:, :1], shown[:, :1]) == 0).all()


def test_places_are_looked_at_as_often_as_the_law_says():
    world = small("mall", users=10_000, slate=10)
    drawn = world.truth.simulate(np.arange(10_000), np.tile(np.arange(10), (10_000, 1)))
    views = drawn.outcome["view"].sum(axis=0)
    chance = (1.0 + np.arange(10)) ** -0.5
    assert drawn.outcome["view"].size == 100_000
    assert abs((views - 10_000 * chance) / np.sqrt(10_000 * chance * (1 - chance) + 1e-9)).max() < 4
    assert surprise(np.stack([views, 10_000 - views])[:, 1:], 10_000 * np.stack([chance, 1 - chance])[:, 1:], 9) < 4


def test_the_way_to_a_purchase_follows_the_formula():
    world = small("mall", users=10_000)
    funnel, content = world.find(Funnel), world.find(Content)
    users, lists = np.arange(10_000), np.tile(np.arange(10), (10_000, 1))
    drawn = world.truth.simulate(users, lists)
    s = funnel.settings
    crowd = crowding(drawn.item_vector, drawn.shown)
    click = sigmoid(
        world.scenario.click_bias + world.traits["keenness"][:, None] + drawn.term("interest")
        + world.mechanisms["surfaces"].biases[world.mechanisms["surfaces"].surface(drawn)][:, None]
        - s.substitutes * crowd
    )  # fmt: skip
    np.testing.assert_allclose(drawn.expected["click"], drawn.expected["view"] * click)
    cart = sigmoid(s.cart_bias + s.cart * drawn.affinity("cart"))
    dear = s.price * np.log(content.price[:10] / content.settings.price)
    buy = sigmoid(s.buy_bias + s.buy * drawn.affinity("buy") - dear)
    np.testing.assert_allclose(drawn.expected["buy"], drawn.expected["click"] * cart * buy)
    clicked, put = drawn.outcome["click"] == 1, drawn.outcome["cart"] == 1
    assert coin_surprise(drawn.outcome["cart"][clicked], cart[clicked]) < 4
    assert coin_surprise(drawn.outcome["buy"][put], buy[put]) < 4


def test_items_of_a_kind_take_clicks_from_each_other():
    world = small("mall")
    content = world.find(Content)
    same = np.flatnonzero(content.main == content.main[0])[:5]
    users = np.arange(100)
    for twin, differ in ((world, True), (world.twin("funnel.competition"), False)):
        crowded = twin.truth.expect(users, np.tile(same, (100, 1)))["click"][:, 0]
        single = twin.truth.expect(users, np.full((100, 1), same[0]))["click"][:, 0]
        assert (crowded < single - 1e-6).all() if differ else np.allclose(crowded, single)
