from itertools import combinations

import numpy as np
import polars as pl

from taiji.data.history import History
from taiji.models.retrieval.swing import Swing, swing
from taiji.testing import check_component, check_retriever
from taiji.testing.datasets import requests_of


def log(users, items, rows, seed):
    random = np.random.default_rng(seed)
    frame = pl.DataFrame(
        {"user": random.integers(0, users, rows), "item": random.integers(0, items, rows), "time": np.arange(rows)}
    )
    return History.from_events(frame.with_columns(click=pl.lit(1)).cast({"user": pl.UInt32, "item": pl.UInt32}), users)


def test_it_is_the_sum_over_pairs_of_users():
    for seed in range(3):
        history = log(9, 7, 40, seed)
        taken = [set(history.items[a:b].tolist()) for a, b in zip(history.offsets, history.offsets[1:])]
        wanted = np.zeros((7, 7))
        for u, v in combinations(range(9), 2):
            both = taken[u] & taken[v]
            for i, j in ((i, j) for i in both for j in both if i != j):
                wanted[i, j] += 1 / np.sqrt(len(taken[u]) * len(taken[v])) / (0.5 + len(both))
        found = np.zeros((7, 7))
        first, second, weight = swing(history, 7, smoothing=0.5)
        found[first, second] = weight
        np.testing.assert_allclose(found, wanted, atol=1e-9)


def test_few_users_and_neighbours_are_looked_at_where_asked():
    history = log(30, 6, 150, 0)
    first, _, _ = swing(history, 6, neighbours=2)
    assert np.bincount(first).max() == 2
    some = swing(history, 6, users=3)
    assert len(some[0]) <= 30 and (some[2] > 0).all()


def test_it_keeps_the_contract_and_finds_the_checkerboard(board):
    model = Swing(Swing.Settings(seen="keep")).fit(board)
    check_retriever(model, board)
    requests = requests_of(board)
    check_component(model, board, lambda m: m.retrieve(requests, 7).items)
    found = model.retrieve(requests, 8)
    assert ((requests.user[:, None] + found.items) % 2 == 0).all()
