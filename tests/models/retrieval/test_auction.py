"""The auction against brute force and a linear programme; capacity holds whatever is asked, and no item's turn
counts."""

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taiji.core.errors import InputError
from taiji.models.retrieval.auction import auction, in_turn


def problem(seed, items=6, users=8, width=5, values=20):
    """Return whole values (I, K), candidates (I, K), and rooms (U,)."""
    random = np.random.default_rng(seed)
    candidates = np.argsort(random.random((items, users)), axis=1)[:, :width]
    candidates[random.random(candidates.shape) < 0.1] = -1
    return random.integers(-3, values, candidates.shape).astype(float), candidates, random.integers(0, 4, users)


def kept(held, users, room, per_item):
    counts = np.bincount(users[held], minlength=len(room))
    return (counts <= room).all() and (held.sum(axis=1) <= per_item).all() and (users[held] >= 0).all()


def test_small_cases_are_those_of_brute_force():
    for seed in range(25):
        values, users, room = problem(seed, items=3, users=3, width=3, values=8)
        choices = [
            [list(c) for size in range(3) for c in combinations(np.flatnonzero(row >= 0), size)] for row in users
        ]  # at most two users an item
        best = 0.0
        for chosen in product(*choices):
            held = np.zeros(users.shape, dtype=bool)
            for row, places in enumerate(chosen):
                held[row, places] = True
            if kept(held, users, room, 2):
                best = max(best, values[held].sum())
        held = auction(values, users, room, 2, 1 / 16)
        assert kept(held, users, room, 2) and values[held].sum() == best, seed


def test_larger_cases_are_those_of_a_linear_programme():
    optimise = pytest.importorskip("scipy.optimize")
    for seed in range(12):
        values, users, room = problem(seed)
        row, place = np.nonzero(users >= 0)
        items = (row == np.arange(6)[:, None]) * 1.0
        takers = (users[row, place] == np.arange(8)[:, None]) * 1.0
        found = optimise.linprog(
            -values[row, place], np.concatenate([items, takers]), np.concatenate([np.full(6, 3), room]), bounds=(0, 1)
        )
        held = auction(values, users, room, 3, 1 / 32)  # below 1 / (6 items of 3 users)
        assert kept(held, users, room, 3) and values[held].sum() == round(-found.fun), seed


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4), st.sampled_from([0.01, 0.3, 5.0]))
def test_capacity_is_never_exceeded(seed, per_item, tolerance):
    values, users, room = problem(seed)
    order = np.random.default_rng(seed).permutation(len(values))
    for held in (auction(values, users, room, per_item, tolerance), in_turn(values, users, room, per_item, order)):
        assert kept(held, users, room, per_item) and (values[held] > 0).all()


def test_no_order_of_the_items_decides_an_auction_and_one_decides_turns():
    random = np.random.default_rng(3)
    users, room = np.tile(np.arange(5), (8, 1)), np.full(5, 2)
    values = random.random((8, 5))
    held = auction(values, users, room, 3, 1e-6)
    turns = in_turn(values, users, room, 3, np.arange(8))
    moved = []
    for _ in range(6):
        order = random.permutation(8)
        np.testing.assert_array_equal(auction(values[order], users, room, 3, 1e-6), held[order])
        moved.append((in_turn(values, users, room, 3, order) != turns).any())
    assert any(moved) and values[turns].sum() < values[held].sum()


def test_what_does_not_fit_is_refused():
    values, users, room = problem(0)
    for wrong in ((values[:, :2], users), (values, users + 5), (values * np.nan, users), (values, users * 0)):
        with pytest.raises(InputError, match="malformed"):
            auction(*wrong, room, 2, 0.1)
    with pytest.raises(InputError, match="must be positive"):
        auction(values, users, room, 2, 0.0)
