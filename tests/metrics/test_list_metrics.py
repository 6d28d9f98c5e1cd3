"""Exact values of list metrics, against loops and by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taiji.core.errors import InputError
from taiji.metrics.list_metrics import Targets, coverage, diversity, hit_rate, hits, ndcg, novelty, recall


@given(seed=st.integers(0, 10_000), k=st.integers(1, 6))
def test_agrees_with_a_loop(seed, k):
    random = np.random.default_rng(seed)
    lists = np.array([random.permutation(9)[:5] for _ in range(6)])
    lists[np.arange(5) >= random.integers(0, 6, 6)[:, None]] = -1
    who, what = random.integers(0, 6, 12), random.integers(0, 9, 12)
    targets = Targets.of(who, what, 6)
    hit, counts = hits(lists, targets), targets.counts
    found = recall(hit, counts, k), hit_rate(hit, counts, k), ndcg(hit, counts, k)
    for row in range(6):
        wanted = set(what[who == row].tolist())
        assert counts[row] == len(wanted)
        if not wanted:
            assert all(np.isnan(values[row]) for values in found)
            continue
        gains = [item in wanted for item in lists[row][:k].tolist()]
        best = sum(1 / np.log2(place + 2) for place in range(min(k, len(wanted))))
        expected = (
            sum(gains) / len(wanted),
            float(any(gains)),
            sum(gain / np.log2(place + 2) for place, gain in enumerate(gains)) / best,
        )
        np.testing.assert_allclose([values[row] for values in found], expected, atol=1e-12)


def test_what_lists_are_like():
    lists = np.array([[0, 1, 2], [3, -1, -1], [-1, -1, -1]])
    assert coverage(lists, 8, 2) == 3 / 8
    assert diversity(lists, np.array([5, 5, 6, 6]), 3).tolist()[0] == pytest.approx(2 / 3)
    assert np.isnan(diversity(lists, np.array([5, 5, 6, 6]), 3)[1:]).all()
    bits = novelty(lists, np.array([0.5, 0.25, 0.0, 0.5]), 3)
    assert bits[0] == pytest.approx((1 + 2 + 3) / 3) and bits[1] == 1 and np.isnan(bits[2])


def test_wrong_lists():
    targets = Targets.of(np.array([0]), np.array([3]), 1)
    with pytest.raises(InputError, match="twice"):
        hits(np.array([[3, 3]]), targets)
    with pytest.raises(InputError, match="differ in number"):
        hits(np.array([[3], [3]]), targets)
    assert hits(np.array([[7, 3, 5]]), Targets.of(np.zeros(3, int), np.array([5, 7, 3]), 1)).all()
    for items in ([5, 7, 3], [3, 3, 5]):
        with pytest.raises(InputError, match="ascending"):
            Targets(np.array([0, 3]), np.array(items))
    assert len(Targets(np.array([0, 2, 2, 3]), np.array([5, 7, 3]))) == 3
    assert not hits(np.array([[1, -1]]), Targets.of(np.zeros(0, int), np.zeros(0, int), 1)).any()
