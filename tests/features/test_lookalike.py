import numpy as np
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from taiji.features.lookalike import nearest_users


def reference(users, as_ofs, vectors):
    """The definition, row by row."""
    vectors = vectors.astype(np.float64)
    unit = vectors / np.where((norm := np.linalg.norm(vectors, axis=1, keepdims=True)) > 0, norm, 1)
    out = []
    for row in range(len(users)):
        newest = {}
        for other in sorted(range(len(users)), key=lambda r: (as_ofs[r], r)):
            if as_ofs[other] <= as_ofs[row] and users[other] != users[row]:
                newest[users[other]] = other
        found = [(-round(float(unit[row] @ unit[r]), 9), u) for u, r in newest.items() if vectors[r].any()]
        out.append(min(found)[1] if found and vectors[row].any() else -1)
    return np.array(out)


@hypothesis_settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 40),
    people=st.integers(1, 8),
    moments=st.integers(1, 15),
    block=st.integers(1, 50),
)
def test_agrees_with_the_definition(seed, rows, people, moments, block):
    random = np.random.default_rng(seed)
    users, as_ofs = random.integers(0, people, rows), random.integers(0, moments, rows)
    vectors = random.integers(-2, 3, (rows, 3)).astype(np.float32)
    neighbours, cosines = nearest_users(users, as_ofs, vectors, block=block)
    assert np.array_equal(neighbours, reference(users, as_ofs, vectors))
    assert not np.any(neighbours == users)
    assert np.all(cosines[neighbours < 0] == 0)


@hypothesis_settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), rows=st.integers(2, 30), future=st.integers(1, 30))
def test_later_rows_change_nothing(seed, rows, future):
    random = np.random.default_rng(seed)
    users, as_ofs = (
        random.integers(0, 6, rows + future),
        np.concatenate([random.integers(0, 10, rows), random.integers(10, 20, future)]),
    )
    vectors = random.normal(size=(rows + future, 4)).astype(np.float32)
    alone = nearest_users(users[:rows], as_ofs[:rows], vectors[:rows])
    together = nearest_users(users, as_ofs, vectors)
    assert np.array_equal(alone[0], together[0][:rows]) and np.array_equal(alone[1], together[1][:rows])


def test_pool_serves_rows_outside_it():
    pool = (np.array([3, 4]), np.array([5, 5]), np.array([[1.0, 0.0], [0.0, 1.0]]))
    neighbours, cosines = nearest_users(
        np.array([3, 0, 0]), np.array([9, 9, 4]), np.array([[1.0, 0.1], [1.0, 0.1], [1.0, 0.1]]), pool
    )
    assert neighbours.tolist() == [4, 3, -1] and 0 < cosines[0] < 0.2 and cosines[1] > 0.99


def test_repeated_answers_go_to_the_smallest_user():
    vectors = np.tile(np.random.default_rng(0).normal(size=(1, 37)), (50, 1))
    neighbours, _ = nearest_users(np.arange(50), np.zeros(50), vectors, block=7)
    assert neighbours.tolist() == [1] + [0] * 49
