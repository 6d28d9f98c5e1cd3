"""Item factors equal the singular value decomposition, and are the same for the same seed."""

import numpy as np

from taiji.data.history import History
from taiji.models.retrieval.item_factors import item_factors


def history(matrix):
    _, items = np.nonzero(matrix)
    offsets = np.concatenate([[0], np.cumsum(matrix.sum(axis=1))]).astype(np.int64)
    return History(offsets, items.astype(np.int64), np.arange(len(items), dtype=np.int64))


def test_against_the_full_decomposition():
    matrix = (np.random.default_rng(0).random((40, 15)) < 0.3).astype(np.int64)
    matrix[:, 14] = 0
    found = item_factors(history(matrix), 15, 4)
    busy, popular = matrix.sum(axis=1, keepdims=True), matrix.sum(axis=0, keepdims=True)
    _, sizes, right = np.linalg.svd(matrix / np.sqrt(np.maximum(busy * popular, 1)), full_matrices=False)
    np.testing.assert_allclose(np.abs(found), np.abs(right[:4].T * sizes[:4]), atol=1e-6)
    assert not found[14].round(12).any()
    assert item_factors(history(matrix), 15, 4).tobytes() == found.tobytes()


def test_fewer_directions_than_asked_for():
    assert item_factors(history(np.eye(3, dtype=np.int64)), 3, 8).shape == (3, 8)
