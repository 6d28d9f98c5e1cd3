"""Remembered answers are those of the components themselves."""

import numpy as np
import polars as pl

from taiji.cascade.remembered import RememberedRetriever, RememberedScorer, Rows, distinct
from taiji.core.component import Requests, Slate
from taiji.models.ranking import train_ranker
from taiji.testing.datasets import exposures_of


def test_distinct_items_of_a_row():
    found = distinct(np.array([[3, 1, 3, -1], [-1, -1, 0, 0]]))
    assert found.tolist() == [[1, 3], [0, -1]]
    assert distinct(np.full((2, 3), -1)).tolist() == [[-1], [-1]]


def test_predictions_are_looked_up_by_request_and_item(board):
    start = int(board.events["time"][1000])
    ranker = train_ranker(board, exposures_of(board).filter(pl.col("time") < start), seed=0)
    requests = Requests(np.arange(6), np.full(6, start))
    random, at = np.random.default_rng(0), Rows()
    slates = {name: Slate(np.stack([random.permutation(10)[:5] for _ in range(6)])) for name in "ab"}
    remembered = RememberedScorer(ranker, requests, slates, at)
    at.rows = slice(2, 5)
    asked = Slate(slates["b"].items[2:5, ::-1])
    found = remembered.score(None, asked)
    expected = ranker.score(ranker.encode(requests.take(at.rows)), asked)
    assert found.keys() == expected.keys()
    for task, values in expected.items():
        np.testing.assert_allclose(found[task], values, rtol=1e-5)
    again = RememberedRetriever(slates["a"], at).retrieve(requests, 3)
    assert again.items.tolist() == slates["a"].items[2:5, :3].tolist()
