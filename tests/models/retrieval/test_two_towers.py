"""The checkerboard is found, categories speak for rare items, and the contract holds."""

import numpy as np
import pytest

from taiji.data.history import History
from taiji.models.retrieval.two_towers import TwoTowers, TwoTowersSettings, before_rows, training_rows
from taiji.testing import check_component, check_deterministic, check_retriever
from taiji.testing.datasets import requests_of

QUICK = TwoTowersSettings(width=16, hidden=16, dropout=0.0, batch=64, epochs=8, learning_rate=1e-2, seen="keep")


@pytest.fixture(scope="module")
def fitted(board):
    return TwoTowers(QUICK).fit(board)


def test_contract(board, fitted):
    check_retriever(fitted, board)
    requests = requests_of(board)
    check_component(fitted, board, lambda model: model.retrieve(requests, 5).items)


def test_finds_the_checkerboard(board, fitted):
    requests = requests_of(board)
    found = fitted.retrieve(requests, 8).items
    assert ((requests.user[:, None] + found) % 2 == 0).all()


def test_seed(board):
    quick = QUICK.model_copy(update={"epochs": 1, "dropout": 0.1})
    check_deterministic(lambda seed: TwoTowers(quick).fit(board, seed=seed, device="cpu"))


def test_rows_have_a_past_and_read_nothing_of_their_own_instant():
    history = History(np.array([0, 3, 3, 5]), np.array([4, 5, 6, 7, 8]), np.array([1, 2, 2, 9, 10]))
    rows = training_rows(history, 10)
    assert rows.tolist() == [1, 2, 4] and training_rows(history, 1).tolist() == [4]
    past, target = before_rows(history, rows, 3)
    assert past.tolist() == [[4, -1, -1], [-1, 4, -1], [7, -1, -1]] and target.tolist() == [5, 6, 8]
