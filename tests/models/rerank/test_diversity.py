"""The contract, and greedy choices against brute force."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taiji.core.component import Requests, Slate
from taiji.core.errors import ConfigError
from taiji.models.rerank.diversity import DPP, MMR, Caps, greedy_dpp
from taiji.testing import check_reranker

RANDOM = np.random.default_rng(0)
VECTORS = RANDOM.normal(size=(30, 5))
KINDS = np.arange(30) % 4


@pytest.mark.parametrize(
    "reranker",
    [MMR(VECTORS), DPP(VECTORS), DPP(np.ones((30, 2))), Caps({"kind": KINDS}, {"kind": 1})],
    ids=["mmr", "dpp", "dpp of equal items", "caps"],
)
@pytest.mark.parametrize("length", [1, 4, 8, 20])
def test_contract(reranker, length):
    check_reranker(reranker, length=length)


@given(seed=st.integers(0, 500))
def test_greedy_dpp_takes_what_raises_the_determinant_most(seed):
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(7, 5))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    quality = random.normal(size=7)
    similarity = vectors @ vectors.T
    places = greedy_dpp(similarity[None], quality[None], np.ones((1, 7), bool), 4)[0].tolist()
    kernel = np.exp(quality)[:, None] * similarity * np.exp(quality)
    chosen: list[int] = []
    for _ in range(4):
        gains = {i: np.linalg.det(kernel[np.ix_([*chosen, i], [*chosen, i])]) for i in range(7) if i not in chosen}
        chosen.append(max(gains, key=gains.__getitem__))
    assert places == chosen


@given(seed=st.integers(0, 500), weight=st.sampled_from([0.0, 0.4, 1.0]))
def test_mmr_agrees_with_a_loop(seed, weight):
    random = np.random.default_rng(seed)
    vectors, items, scores = random.normal(size=(9, 4)), random.permutation(9)[:6], random.random(6)
    found = MMR(vectors, weight).rerank(Requests([0], [0]), Slate(items[None], scores[None]), 4).items[0]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    chosen: list[int] = []
    for _ in range(4):
        gains = {
            i: weight * scores[i] - (1 - weight) * max((unit[items[i]] @ unit[items[j]] for j in chosen), default=0.0)
            for i in range(6)
            if i not in chosen
        }
        chosen.append(max(gains, key=gains.__getitem__))
    assert found.tolist() == items[chosen].tolist()


def test_caps_hold_while_there_is_something_else():
    slate = Slate(np.array([[0, 4, 8, 1, 5, 2]]), np.array([[6.0, 5, 4, 3, 2, 1]]))
    shown = Caps({"kind": KINDS}, {"kind": 2}).rerank(Requests([0], [0]), slate, 5)
    assert shown.items.tolist() == [[0, 4, 1, 5, 2]]
    short = Caps({"kind": KINDS}, {"kind": 1}).rerank(Requests([0], [0]), slate, 5)
    assert short.items.tolist() == [[0, 1, 2, 4, 8]]
    free = np.where(KINDS == 0, -1, KINDS)
    assert Caps({"kind": free}, {"kind": 1}).rerank(Requests([0], [0]), slate, 3).items.tolist() == [[0, 4, 8]]


def test_wrong_settings():
    with pytest.raises(ConfigError, match="outside"):
        MMR(VECTORS, 1.5)
    with pytest.raises(ConfigError, match="above 0"):
        DPP(VECTORS, 0)
    with pytest.raises(ConfigError, match="cap"):
        Caps({"kind": KINDS}, {"kind": 0})
