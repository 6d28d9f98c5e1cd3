"""Fused ranks against a loop; quotas in their order; both keep the contract of a retriever."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taiji.core.errors import ConfigError
from taiji.models.retrieval.cooccurrence import Cooccurrence
from taiji.models.retrieval.popularity import Popularity
from taiji.models.retrieval.union import Quotas, RankFusion, fill_quotas, fuse_ranks
from taiji.testing import check_retriever


def slate(random, rows, items, width):
    out = np.array([random.permutation(items)[:width] for _ in range(rows)])
    out[np.arange(width) >= random.integers(0, width + 1, rows)[:, None]] = -1
    return out


@given(seed=st.integers(0, 1000), k=st.integers(1, 12))
def test_fused_ranks_agree_with_a_loop(seed, k):
    random = np.random.default_rng(seed)
    slates, weights = [slate(random, 3, 9, width) for width in (5, 7)], np.array([1.0, 0.4])
    found = fuse_ranks(slates, weights, k)
    for row in range(3):
        gains: dict[int, list[float]] = {}
        for number, items in enumerate(slates):
            for rank, item in enumerate(items[row]):
                if item >= 0:
                    gains.setdefault(int(item), [0.0, 0.0])[number] = weights[number] / (61 + rank)
        order = sorted(gains, key=lambda item: (-round(sum(gains[item]), 12), item))[:k]
        there = found.items[row] >= 0
        assert found.items[row][there].tolist() == order
        assert found.source[row][there].tolist() == [int(np.argmax(gains[item])) for item in order]


def test_quotas_in_order_without_repeats():
    first, second = np.array([[1, 2, 3], [4, -1, -1]]), np.array([[2, 1, 5, 6], [4, 7, 8, -1]])
    found = fill_quotas([first, second], [2, 2], 10)
    assert found.items.tolist() == [[1, 2, 5, 6], [4, 7, 8, -1]]
    assert found.source.tolist() == [[0, 0, 1, 1], [0, 1, 1, 0]]
    assert fill_quotas([first, second], [2, 2], 3).items.tolist() == [[1, 2, 5], [4, 7, 8]]


def test_contract(board):
    parts = Cooccurrence().fit(board), Popularity().fit(board)
    check_retriever(RankFusion(parts, [1.0, 0.5], depth=15), board)
    check_retriever(Quotas([(parts[0], 3), (parts[1], 4)]), board)


def test_wrong_settings(board):
    part = Popularity().fit(board)
    with pytest.raises(ConfigError, match="one positive weight"):
        RankFusion([part], [1.0, 2.0])
    with pytest.raises(ConfigError, match="quota"):
        Quotas([(part, 0)])
