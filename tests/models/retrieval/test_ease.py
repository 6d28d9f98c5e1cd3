"""The closed form against the definition: ridge regressions with a zero diagonal."""

import numpy as np
import torch

from taiji.core.component import Requests
from taiji.models.retrieval.ease import EASE, EASESettings, ease_weights, gram_of
from taiji.models.retrieval.item_knn import ItemKNN, ItemKNNSettings, interactions
from taiji.testing.datasets import requests_of

RANDOM = np.random.default_rng(0)
X = (RANDOM.random((40, 7)) < 0.3).astype(np.float64)


def test_each_column_is_the_ridge_regression_on_the_others():
    weights = ease_weights(X.T @ X, 3.0)
    for item in range(7):
        others = [i for i in range(7) if i != item]
        expected = np.linalg.solve(X[:, others].T @ X[:, others] + 3.0 * np.eye(6), X[:, others].T @ X[:, item])
        np.testing.assert_allclose(weights[others, item], expected, atol=1e-12)
        assert weights[item, item] == 0


def test_sparse_gram(board):
    matrix = interactions(board.history, board.n_items)
    dense = matrix.to_dense().numpy()
    assert set(np.unique(dense).tolist()) == {0.0, 1.0}
    chosen = np.array([3, 5, 11])
    np.testing.assert_array_equal(gram_of(matrix, chosen, block=2), dense[:, chosen].T @ dense[:, chosen])
    assert isinstance(matrix, torch.Tensor)


def test_unmodelled_items_are_not_retrieved(board):
    model = EASE(EASESettings(items=6, seen="keep")).fit(board)
    found = model.retrieve(requests_of(board), 20)
    assert set(found.items.ravel().tolist()) - {-1} == set(model.items.tolist()) and len(model.items) == 6


def test_nothing_is_found_for_a_history_without_modelled_items(board):
    model = EASE(EASESettings(items=6, seen="keep")).fit(board)
    cold = model.retrieve(Requests([0], [int(board.events["time"].min())]), 5)
    assert (cold.items == -1).all()


def test_item_knn_is_the_shrunk_cosine(board):
    model = ItemKNN(ItemKNNSettings(shrinkage=2.0, neighbours=3)).fit(board)
    dense = interactions(board.history, board.n_items).to_dense().numpy()
    common, users = dense.T @ dense, dense.sum(axis=0)
    similarity = common / (np.sqrt(np.outer(users, users)) + 2.0)
    np.fill_diagonal(similarity, 0)
    best = np.argsort(-similarity, axis=1, kind="stable")[:, :3]
    found = model.weights()
    rows = np.arange(board.n_items)[:, None]
    np.testing.assert_allclose(found["similarities"], similarity[rows, best], atol=1e-12)
