"""Capacity over many rounds of matching and release, only available users, and what a request sees of it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taiji.core.errors import InputError
from taiji.models.retrieval.matches import Matches


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["auction", "random"]))
def test_invariants_over_rounds(seed, order):
    random = np.random.default_rng(seed)
    matches = Matches(7, 3)
    for start in range(4):
        items = start * 3 + random.permutation(6)  # some were there before
        available = random.random(7) < 0.7
        before = set(zip(matches.user.tolist(), matches.item.tolist()))
        added = matches.add(
            items, random.normal(size=(6, 7)), available, per_item=2, candidates=4, order=order, seed=seed
        )
        pairs = list(zip(matches.user.tolist(), matches.item.tolist()))
        new = set(pairs) - before
        assert len(set(pairs)) == len(pairs) == len(before) + added and len(new) == added
        assert (np.bincount(matches.user, minlength=7) <= 3).all() and (matches.room >= 0).all()
        assert all(available[user] for user, _ in new)
        assert all(np.bincount([item for _, item in new], minlength=20) <= 2)
        matches.release(random.integers(0, 7, 5), random.integers(0, 20, 5))


def test_pairs_of_a_request_and_release():
    matches = Matches(4, 2)
    matches.put(np.array([2, 0, 2]), np.array([9, 5, 4]), np.array([0.9, 0.5, 0.4]))
    row, item, worth = matches.of(np.array([2, 1, 0, 2, -1]))
    assert list(zip(row.tolist(), item.tolist(), worth.tolist())) == [
        (0, 4, 0.4), (0, 9, 0.9), (2, 5, 0.5), (3, 4, 0.4), (3, 9, 0.9)
    ]  # fmt: skip
    matches.release(np.array([2, 2, 1]), np.array([9, 5, 9]))
    assert matches.user.tolist() == [0, 2] and matches.item.tolist() == [5, 4]
    matches.release(np.array([-2, 4, 8]), np.array([5, 4, 3]))  # users who do not exist: none of them is user 2 or 0
    assert matches.user.tolist() == [0, 2] and matches.item.tolist() == [5, 4]
    matches.release(np.array([4, -4]), np.array([4, 6]))
    assert matches.user.tolist() == [0, 2]


def test_a_pair_that_stands_is_not_matched_again_and_a_full_user_takes_nothing():
    matches = Matches(2, 1)
    values = np.array([[1.0, 0.2]])
    assert matches.add(np.array([3]), values, np.array([True, False]), per_item=2) == 1
    assert matches.add(np.array([3]), values, np.array([True, True]), per_item=2) == 1
    assert matches.add(np.array([4]), values, np.array([True, True]), per_item=2) == 0
    assert matches.room.tolist() == [0, 0]


def test_what_does_not_fit_is_refused():
    matches = Matches(3, 1)
    with pytest.raises(InputError, match="items and users"):
        matches.add(np.array([1, 1]), np.ones((2, 3)), np.ones(3, bool), per_item=1)
    with pytest.raises(InputError, match="more items than the capacity"):
        matches.put(np.array([1, 1]), np.array([2, 3]), np.ones(2))
