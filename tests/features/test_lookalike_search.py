"""The search by snapshots is the exact one where every list is looked at, and reads nothing of the future in any
case."""

import numpy as np
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from taiji.features.lookalike import _replaced_at, _unit, nearest_users
from taiji.features.lookalike_search import search_snapshots
from taiji.models.retrieval.vector_index import VectorIndex


def log(random, rows, people, times):
    return (
        random.integers(0, people, rows),
        random.integers(0, times, rows),
        random.normal(size=(rows, 4)).astype(np.float32),
    )


def by_snapshots(users, as_ofs, vectors, fresh, exact_below=10_000):
    unit, _ = _unit(vectors, np.float32)
    end = _replaced_at(users, as_ofs)
    order = np.flatnonzero(end > as_ofs)
    order = order[np.lexsort((users[order], as_ofs[order]))]
    pool = users[order], as_ofs[order], end[order], unit[order]
    index = VectorIndex(4, exact_below=exact_below, probes=1.0)
    found, _ = search_snapshots(users, as_ofs, unit, pool, index=index, fresh=fresh)
    return np.where(found >= 0, pool[0][np.maximum(found, 0)], -1)


@hypothesis_settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), rows=st.integers(1, 120), fresh=st.integers(1, 4))
def test_agrees_with_the_exact_search(seed, rows, fresh):
    """With few replacements between snapshots no candidate is lost; vectors are drawn, so ties do not occur."""
    random = np.random.default_rng(seed)
    users, as_ofs, vectors = log(random, rows, 12, 60)
    exact, _ = nearest_users(users, as_ofs, vectors)
    for exact_below in (10_000, 20):
        np.testing.assert_array_equal(by_snapshots(users, as_ofs, vectors, fresh, exact_below), exact)


@hypothesis_settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), rows=st.integers(2, 80), future=st.integers(1, 60))
def test_later_rows_change_nothing(seed, rows, future):
    random = np.random.default_rng(seed)
    users, as_ofs, vectors = log(random, rows + future, 6, 20)
    as_ofs[rows:] += 20
    alone = by_snapshots(users[:rows], as_ofs[:rows], vectors[:rows], fresh=7, exact_below=15)
    together = by_snapshots(users, as_ofs, vectors, fresh=7, exact_below=15)
    np.testing.assert_array_equal(alone, together[:rows])


def test_the_public_search_switches_to_the_index():
    random = np.random.default_rng(0)
    users, as_ofs, vectors = log(random, 3000, 900, 500)
    vectors[5] = 0.0
    exact, cosines = nearest_users(users, as_ofs, vectors)
    found, approximate = nearest_users(users, as_ofs, vectors, exact_below=1000, probes=1.0)
    assert (found == exact).mean() > 0.999 and found[5] == -1 and approximate[5] == 0
    np.testing.assert_allclose(approximate, cosines, atol=1e-5)
