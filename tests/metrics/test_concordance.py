"""Concordance against counting every pair, with ties in labels and predictions, weighted and in groups."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from taiji.metrics.bootstrap import PooledAUC
from taiji.metrics.concordance import PooledConcordance, grouped_concordance
from taiji.metrics.ranking_metrics import grouped_auc

rows = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 9), st.integers(0, 4)), min_size=1, max_size=30
)  # user, label, score: few values, so many ties
user_weights = st.lists(st.integers(0, 3), min_size=4, max_size=4)


def by_pairs(labels, scores, weights):
    right = pairs = 0.0
    for y, s, w in zip(labels, scores, weights):
        for z, t, v in zip(labels, scores, weights):
            if y > z:
                pairs += w * v
                right += w * v * ((s > t) + 0.5 * (s == t))
    return right / pairs if pairs else np.nan


@given(rows, user_weights)
@settings(max_examples=150, deadline=None)
def test_pooled_value_equals_counting_weighted_pairs(table, weights):
    users, labels, scores = map(np.array, zip(*table))
    statistic = PooledConcordance(users, labels / 3, scores / 7, 4)
    got = statistic(np.array([np.ones(4), weights]))
    expected = [by_pairs(labels, scores, np.array(w)[users]) for w in (np.ones(4), weights)]
    np.testing.assert_allclose(got, expected, rtol=1e-13)
    assert statistic.n_users == 4 and statistic.n == len(set(users.tolist()))


@given(rows)
@settings(max_examples=100, deadline=None)
def test_values_within_groups_equal_counting_pairs(table):
    groups, labels, scores = map(np.array, zip(*table))
    expected = [by_pairs(labels[groups == g], scores[groups == g], np.ones(len(groups))) for g in range(4)]
    np.testing.assert_allclose(grouped_concordance(groups, labels / 3, scores / 7, 4), expected, rtol=1e-13)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1), st.integers(0, 4)), min_size=1, max_size=30), user_weights
)
@settings(max_examples=50, deadline=None)
def test_binary_labels_give_the_auc(table, weights):
    users, labels, scores = map(np.array, zip(*table))
    both = [kind(users, labels, scores, 4)(np.array([weights], dtype=float)) for kind in (PooledAUC, PooledConcordance)]
    np.testing.assert_allclose(both[0], both[1], rtol=1e-13)
    np.testing.assert_allclose(
        grouped_auc(users, labels, scores, 4), grouped_concordance(users, labels, scores, 4), rtol=1e-13
    )


def test_a_constant_prediction_earns_exactly_one_half_and_the_labels_themselves_one():
    labels = np.random.default_rng(0).exponential(size=500)
    users = np.arange(500) % 7
    for scores, value in ((np.zeros(500), 0.5), (labels, 1.0), (-labels, 0.0), (np.log1p(labels), 1.0)):
        assert PooledConcordance(users, labels, scores, 7)(np.ones((1, 7)))[0] == value
        assert np.array_equal(grouped_concordance(users, labels, scores, 7), np.full(7, value))


def test_without_two_different_labels_there_is_no_value():
    users, same = np.array([0, 0, 1]), np.array([2.0, 2.0, 2.0])
    assert np.isnan(PooledConcordance(users, same, np.arange(3), 2)(np.ones((1, 2)))[0])
    assert np.isnan(grouped_concordance(users, same, np.arange(3), 3)).all()
    empty = np.zeros(0, dtype=int)
    assert np.isnan(grouped_concordance(empty, empty, empty, 2)).all()
