"""Nearest vectors against a sort, before and after lists are learnt, with vectors coming and going."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from taiji.core.errors import InputError
from taiji.models.retrieval.vector_index import VectorIndex

WIDTH = 6


def expected(held, queries, k):
    ids = np.array(sorted(held))
    scores = queries @ np.stack([held[i] for i in ids]).T
    order = np.lexsort((np.broadcast_to(ids, scores.shape), -scores), axis=1)[:, :k]
    return ids[order]


@hypothesis_settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), exact_below=st.sampled_from([30, 10_000]))
def test_adding_and_removing(seed, exact_below):
    """With all lists probed the index with lists is exact, too."""
    random = np.random.default_rng(seed)
    index, held, fresh = VectorIndex(WIDTH, exact_below=exact_below, probes=1.0), {}, 0
    for _ in range(4):
        new = np.arange(fresh, fresh + int(random.integers(5, 40)))
        fresh = new[-1] + 1
        vectors = random.normal(size=(len(new), WIDTH)).astype(np.float32)
        index.add(new, vectors)
        held |= dict(zip(new.tolist(), vectors))
        gone = random.choice(sorted(held), 3, replace=False)
        assert index.remove(gone) == 3 and index.remove(gone) == 0
        held = {i: v for i, v in held.items() if i not in gone}
        queries = random.normal(size=(4, WIDTH)).astype(np.float32)
        found, scores = index.search(queries, 5)
        real = found >= 0
        assert (found[real] == expected(held, queries, 5)[: len(found)][real]).all() and len(index) == len(held)
        ids, vectors = index.held()
        assert ids.tolist() == sorted(held) and (vectors == np.stack([held[i] for i in sorted(held)])).all()
        assert (np.diff(scores, axis=1)[real[:, 1:]] <= 0).all()
    assert index.exact == (exact_below > fresh)


def test_only_what_is_allowed():
    random = np.random.default_rng(0)
    vectors = random.normal(size=(300, WIDTH)).astype(np.float32)
    for exact_below in (50, 1000):
        index = VectorIndex(WIDTH, exact_below=exact_below, probes=1.0)
        index.add(np.arange(300), vectors)
        found, _ = index.search(vectors[:5], 4, allowed=np.array([7, 8, 9]))
        assert set(found.ravel().tolist()) == {7, 8, 9, -1} and (found[:, 3] == -1).all()


def test_recall_is_measured_and_grows_with_the_probes():
    random = np.random.default_rng(0)
    vectors = random.normal(size=(4000, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    few, all_ = (VectorIndex(16, exact_below=1000, probes=probes) for probes in (0.02, 1.0))
    for index in (few, all_):
        index.add(np.arange(4000), vectors)
    assert few.recall(vectors[:50], 10) < 0.9 < all_.recall(vectors[:50], 10) == 1.0
    again = VectorIndex(16, exact_below=1000, probes=0.02)
    again.add(np.arange(4000), vectors)
    np.testing.assert_array_equal(again.search(vectors, 5)[0], few.search(vectors, 5)[0])


def test_wrong_vectors():
    index = VectorIndex(WIDTH)
    with pytest.raises(InputError, match="do not match the index"):
        index.add(np.arange(2), np.zeros((2, WIDTH + 1)))
    with pytest.raises(InputError, match="do not match the index"):
        index.add(np.arange(1), np.full((1, WIDTH), np.nan))
    with pytest.raises(InputError, match="twice"):
        index.add(np.array([1, 1]), np.zeros((2, WIDTH)))
    assert index.search(np.zeros((1, WIDTH)), 2)[0].tolist() == [[-1, -1]]


@pytest.mark.parametrize("exact_below", [3, 100])
def test_an_id_is_not_added_a_second_time(exact_below):
    index = VectorIndex(WIDTH, exact_below=exact_below, probes=1.0)
    vectors = np.eye(6, WIDTH, dtype=np.float32)
    index.add(np.arange(6), vectors)
    with pytest.raises(InputError, match="in the index already") as error:
        index.add(np.array([9, 4]), vectors[:2])
    assert "such as 4" in str(error.value.found) and len(index) == 6
    assert index.remove(np.array([4])) == 1
    index.add(np.array([9, 4]), vectors[:2])
    assert index.ids.tolist() == index.held()[0].tolist() == [0, 1, 2, 3, 4, 5, 9]
