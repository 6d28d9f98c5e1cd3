"""Tastes drift on the sphere by their law, and by nothing else."""

from __future__ import annotations

import numpy as np
from tests.world.small import small

from taiji.world.laws import dot
from taiji.world.mechanisms.taste import Taste


def taste(**changes) -> Taste:
    base = small("mall")
    settings = {**base.scenario.model_dump()["mechanisms"], "taste": changes}
    return type(base)(base.scenario, 0, users=1500, mechanisms=settings).find(Taste)


def test_a_step_has_the_set_length_and_goes_back_to_the_long_term_part():
    found = taste(drift=0.2, pull=0.0)
    step = found.short_at(1) - found.long
    k = found.long.shape[1]
    expected = 0.2**2 * found.ground.slot_days * (k - 1) / k
    assert abs(np.square(step).sum(axis=1).mean() / expected - 1) < 0.03
    free, pulled = taste(drift=0.8, pull=0.0), taste(drift=0.8, pull=5.0)
    far, held = dot(free.short_at(120), free.long).mean(), dot(pulled.short_at(120), pulled.long).mean()
    assert far < 0.2 < 0.9 < held


def test_any_slot_can_be_asked_for_again():
    found = taste()
    first, later = found.short_at(3), found.short_at(7)
    np.testing.assert_array_equal(found.short_at(3), first)
    np.testing.assert_array_equal(found.short_at(7), later)
    np.testing.assert_allclose(dot(later, later), 1)


def test_without_drift_tastes_stand_still_and_behaviours_can_be_one():
    still = taste(drift=0.0, pull=0.0, behaviours=0.0)
    np.testing.assert_array_equal(still.short_at(50), still.long)
    world = small("mall").twin("taste.behaviours")
    users, items = np.arange(50), np.arange(50)
    np.testing.assert_array_equal(
        world.truth.affinity(users, items, behaviour="cart"), world.truth.affinity(users, items)
    )


def test_in_the_twin_all_users_like_everything_equally():
    """Carts, purchases and comments included, which read the tastes themselves."""
    for name, given in (("mall", ("cart", "buy")), ("feed-with-comments", ("comment_seconds",))):
        twin = small(name, users=60).twin("taste")
        found = twin.truth.expect(np.arange(60), np.zeros((60, 1), int))
        base = found["view" if name == "feed-with-comments" else "click"]
        for outcome in given:
            np.testing.assert_allclose(found[outcome] / base, (found[outcome] / base)[0, 0], rtol=1e-9)
            base = found[outcome]
