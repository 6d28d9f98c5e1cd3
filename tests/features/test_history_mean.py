import numpy as np
from tests.features.conftest import at, log

from taiji.features.history_mean import history_mean


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
