"""The shop as a mechanism answers as the shop does."""

from __future__ import annotations

import numpy as np
from tests.world.small import small

from taiji.world.mechanisms.shelf import Shelf


def test_the_truth_is_the_shops():
    world = small("shop")
    shop = world.find(Shelf).shop
    users, items = np.arange(200), np.arange(200) % 30
    expected = world.truth.expect(users, items)
    np.testing.assert_allclose(expected["click"][:, 0], shop.click_probability(users, items))
    both = shop.click_probability(users, items) * shop.conversion_probability(users, items)
    np.testing.assert_allclose(expected["buy"][:, 0], both)


def test_a_policy_shows_promoted_items_to_those_who_found_others():
    log = small("shop").log("popular", days=8)
    shown, found = (log.events.filter(log.events["exposed"] == exposed) for exposed in (True, False))
    assert shown["item_id"].max() < 30 <= found["item_id"].min()
    assert len(found) > 500 and (found["click"] == 1).all() and found["propensity"].null_count() == len(found)
    assert log.items["title"].n_unique() > 100
