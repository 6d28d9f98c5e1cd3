import numpy as np
import pytest

from taiji.models.retrieval.item_pairs import distinct_pairs, matched_items, nearest_pairs, preferred


def test_nearest_pairs_are_those_of_brute_force():
    random = np.random.default_rng(0)
    vectors = random.normal(size=(30, 5))
    vectors[4] = 0
    first, second, cosine = nearest_pairs(vectors, 3)
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    every = unit @ unit.T
    np.fill_diagonal(every, -2)
    every[:, 4] = -2
    for item in range(30):
        mine = second[first == item]
        if item == 4:
            assert not len(mine)
            continue
        assert set(mine) == set(np.argsort(-every[item])[:3])
    np.testing.assert_allclose(cosine, every[first, second], atol=1e-6)


def test_equal_vectors_do_not_pair_with_themselves():
    first, second, _ = nearest_pairs(np.ones((4, 3)), 2)
    assert (first != second).all() and np.bincount(first).tolist() == [2] * 4


def test_pairs_of_several_sources_come_once():
    one = (np.asarray([0, 1, 2]), np.asarray([1, 0, 2]), np.ones(3))
    two = (np.asarray([3, 1]), np.asarray([1, 0]), np.ones(2))
    assert [side.tolist() for side in distinct_pairs(one, two)] == [[0, 1], [1, 3]]


def test_matched_items_are_as_popular_and_neither_of_the_two():
    random = np.random.default_rng(0)
    popularity = random.integers(0, 40, 50)
    first, second = random.integers(0, 50, (2, 200))
    first, second = first[first != second], second[first != second]
    other = matched_items(first, second, popularity)
    assert (other >= 0).all() and (other != first).all() and (other != second).all()
    for a, b, c in zip(first, second, other):
        left = [abs(popularity[i] - popularity[b]) for i in range(50) if i not in (a, b)]
        assert abs(popularity[c] - popularity[b]) <= np.partition(left, 1)[1]


def test_preference_counts_ties_as_a_half():
    vectors = np.asarray([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.0, 2.0]])
    pair = np.asarray([0, 0, 0]), np.asarray([1, 2, 2]), np.asarray([2, 1, 3])
    assert preferred(vectors, *pair) == pytest.approx((1 + 0 + 0.5) / 3)
