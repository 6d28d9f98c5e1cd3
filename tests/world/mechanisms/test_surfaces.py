"""Surfaces have their pools, and share tastes as far as is said."""

from __future__ import annotations

import numpy as np
from tests.world.small import small, surprise

from taiji.world.mechanisms.surfaces import NAMES, Surfaces


def test_requests_and_items_are_spread_as_said_and_stay_in_their_pools():
    world = small("mall", users=200, items=3000)
    surfaces = world.find(Surfaces)
    assert surprise(np.bincount(surfaces.item_pool, minlength=3), 3000 * np.array([0.5, 0.3, 0.2])) < 4
    events = world.log("random", days=2)
    pool = dict(zip(events.items["item_id"].to_list(), events.items["surface"].to_list()))
    shown = [pool[item] for item in events.events["item_id"].to_list()]
    assert shown == events.events["scenario"].to_list()
    lists = events.events.unique("list_id")["scenario"]
    counts = [int((lists == name).sum()) for name in NAMES]
    assert surprise(counts, len(lists) * np.array([0.5, 0.3, 0.2])) < 4


def test_tastes_of_surfaces_are_alike_and_one_in_the_twin():
    world = small("mall")
    users = np.arange(100).repeat(3)
    pools = world.find(Surfaces).item_pool
    items = np.tile([np.flatnonzero(pools == p)[0] for p in range(3)], 100)
    for twin, same in ((world, False), (world.twin("surfaces.taste"), True)):
        ((_, exposure),) = twin.truth._exposures(users, items[:, None], None)
        twin.expect(exposure)
        vectors = exposure.user_vector.reshape(100, 3, -1)
        cosine = np.einsum("ak,ak->a", vectors[:, 0], vectors[:, 1])
        assert np.allclose(cosine, 1) if same else 0.4 < cosine.mean() < 0.98


def test_noise_belongs_to_a_user_and_an_item():
    world = small("mall").twin("surfaces.taste")
    users, items = np.arange(100), np.arange(100)
    first = world.truth.expect(users, items)["click"]
    np.testing.assert_array_equal(world.truth.expect(users, items)["click"], first)
    quiet = world.twin("surfaces").truth.expect(users, items)["click"]
    assert (quiet != first).mean() > 0.9
