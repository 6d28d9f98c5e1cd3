import numpy as np
from tests.features.conftest import at, log

from taiji.features.history_mean import future_mean, history_mean


def test_mean_of_the_last_interactions_before(clicks):
    dataset = log(clicks)
    vectors = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    users, as_ofs = np.array([0, 1, 2, 5, 3]), np.array([at(200), at(100), at(499), at(300), at(-1)])
    out = history_mean(dataset, users, as_ofs, vectors, limit=3, block=2)
    for row, (user, as_of) in enumerate(zip(users, as_ofs)):
        items, _ = dataset.history.before(int(user), int(as_of), 3)
        expected = vectors[items].sum(axis=0) if len(items) else np.zeros(5)
        norm = np.linalg.norm(expected)
        assert np.allclose(out[row], expected / (norm or 1), atol=1e-6)
    assert not out[4].any()


def test_the_future_starts_at_the_moment_and_may_skip_what_the_user_knows():
    dataset = log([(0, 1, 10), (0, 2, 20), (0, 1, 30), (0, 3, 40), (1, 4, 5)])
    vectors = np.eye(20, dtype=np.float32)
    users, as_ofs = np.array([0, 0, 0, 1]), np.array([at(20), at(21), at(21), at(6)])
    assert [int(v.argmax()) for v in future_mean(dataset, users[:2], as_ofs[:2], vectors)] == [2, 3]
    assert future_mean(dataset, users[1:2], as_ofs[1:2], vectors, new=False)[0].argmax() == 1
    both = future_mean(dataset, users[2:], as_ofs[2:], vectors, limit=5, new=False)
    assert np.allclose(both[0][[1, 3]], 0.5**0.5) and not both[1].any(), "nothing comes after the last interaction"
