"""Every metric against a naive reference, with ties, and on cases worked out by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taiji.core.errors import TaijiError
from taiji.metrics.ranking_metrics import (
    NDCG,
    RANKING_METRICS,
    SMALLEST,
    Calibration,
    LogLoss,
    Rows,
    UserAUC,
    auc,
    grouped_auc,
    grouped_ndcg,
    hits,
    row_log_loss,
)

tables = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 1), st.integers(0, 3)),
    min_size=1,
    max_size=24,
)  # user, moment, label, score: few values, so many ties


def naive_auc(labels, scores):
    pairs = [(p, n) for p, y in zip(scores, labels) if y for n, z in zip(scores, labels) if not z]
    return np.mean([(p > n) + 0.5 * (p == n) for p, n in pairs]) if pairs else np.nan


def naive_ndcg(gains, scores, k):
    """Average over every order of the rows that respects the scores."""
    if len(set(gains)) < 2:
        return np.nan
    discount = [1 / np.log2(i + 2) if i < k else 0.0 for i in range(len(gains))]
    best = np.dot(sorted(gains, reverse=True), discount)
    orders = [
        o
        for o in itertools.permutations(range(len(gains)))
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(o))
    ]
    return np.mean([np.dot([gains[i] for i in order], discount) for order in orders]) / best


@given(tables)
@settings(max_examples=60, deadline=None)
def test_auc_equals_counting_pairs(table):
    users, _, labels, scores = map(np.array, zip(*table))
    np.testing.assert_allclose(auc(labels, scores), naive_auc(labels, scores))
    expected = [naive_auc(labels[users == u], scores[users == u]) for u in range(4)]
    np.testing.assert_allclose(grouped_auc(users, labels, scores, 4), expected)


@given(tables)
@settings(max_examples=60, deadline=None)
def test_pooled_and_per_user_values_of_the_metrics_agree_with_the_references(table):
    users, moments, labels, scores = map(np.array, zip(*table))
    rows = Rows.of(users, labels, scores / 4 + 0.1, moments)
    assert rows.n_users == len(set(users))
    by_name = {metric.name: metric for metric in RANKING_METRICS}
    np.testing.assert_allclose(by_name["auc"].calc(rows), naive_auc(labels, scores))
    per_user = [naive_auc(labels[users == u], scores[users == u]) for u in np.unique(users)]
    np.testing.assert_allclose(by_name["user_auc"].calc_per_user(rows), per_user)
    np.testing.assert_allclose(
        by_name["user_auc"].calc(rows), np.nanmean(per_user) if np.isfinite(per_user).any() else np.nan
    )


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2)), min_size=1, max_size=7), st.integers(1, 8))
@settings(max_examples=60, deadline=None)
def test_ndcg_is_the_mean_over_all_orders_of_the_ties(table, k):
    gains, scores = (np.array(column) for column in zip(*table))
    np.testing.assert_allclose(
        grouped_ndcg(np.zeros(len(gains), dtype=int), gains, scores, k), [naive_ndcg(gains, scores, k)]
    )


def test_ndcg_averages_requests_within_users_before_users():
    users = [0, 0, 0, 0, 1, 1, 2]
    moments = [1, 1, 2, 2, 1, 1, 1]
    rows = Rows.of(users, [1, 0, 1, 0, 0, 1, 1], [0.9, 0.1, 0.1, 0.9, 0.2, 0.8, 0.5], moments)
    second = 1 / np.log2(3)
    np.testing.assert_allclose(NDCG(10).calc_per_user(rows), [(1 + second) / 2, 1.0, np.nan])
    assert NDCG(10).calc(rows) == pytest.approx(((1 + second) / 2 + 1) / 2)
    assert NDCG(1).calc_per_user(rows)[0] == 0.5


def test_rows_of_several_arms_are_those_of_each():
    users, labels, times = ["b", "a", "b", "a"], [1, 0, 0, 1], [2, 2, 1, 2]
    scores = {"one": [0.1, 0.2, 0.3, 0.4], "two": [0.4, 0.3, 0.2, 0.1]}
    made = Rows.of_arms(users, labels, scores, times)
    assert list(made) == ["one", "two"]
    for arm, rows in made.items():
        alone = Rows.of(users, labels, scores[arm], times)
        assert all(np.array_equal(getattr(rows, name), getattr(alone, name)) for name in vars(alone))
    with pytest.raises(TaijiError, match="two row 1"):
        Rows.of_arms(users, labels, {**scores, "two": [0.4, np.nan, 0.2, 0.1]}, times)


def test_log_loss_by_hand_and_bounded_on_certain_mistakes():
    rows = Rows.of(["a", "a", "b"], [1, 0, 1], [0.5, 0.75, 0.25])
    np.testing.assert_allclose(LogLoss().calc_per_user(rows), [(np.log(2) + np.log(4)) / 2, np.log(4)])
    assert LogLoss().calc(rows) == pytest.approx((np.log(2) + 2 * np.log(4)) / 3)
    assert row_log_loss(np.array([1.0]), np.array([0.0]))[0] == pytest.approx(-np.log(SMALLEST))


def test_calibration_is_predicted_over_observed():
    rows = Rows.of([0, 0, 1, 1], [1, 0, 0, 0], [0.5, 0.25, 0.5, 0.25])
    np.testing.assert_allclose(Calibration().calc_per_user(rows), [0.75, np.nan])
    assert Calibration().calc(rows) == 1.5


def test_a_constant_prediction_earns_exactly_chance():
    labels = np.array([1, 0, 0, 1, 0])
    rows = Rows.of(np.zeros(5), labels, np.full(5, 0.4))
    assert UserAUC().calc(rows) == 0.5
    shuffled = Rows.of(np.zeros(5), labels[::-1], np.full(5, 0.4))
    assert NDCG(3).calc(rows) == pytest.approx(NDCG(3).calc(shuffled))


@given(tables, st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_the_order_of_rows_decides_nothing(table, random):
    shuffled = table.copy()
    random.shuffle(shuffled)
    for metric in RANKING_METRICS:
        values = []
        for rows in (table, shuffled):
            users, moments, labels, scores = map(np.array, zip(*rows))
            values.append(metric.calc(Rows.of(users, labels, scores / 4 + 0.1, moments)))
        np.testing.assert_allclose(values[0], values[1])


def test_hits_shares_the_last_place_among_ties():
    np.testing.assert_allclose(hits([0, 9, 10, 8], [1, 1, 1, 4], 10), [1, 1, 0, 0.5])


def test_bad_input_is_explained():
    with pytest.raises(TaijiError, match="neither 0 nor 1"):
        Rows.of([0, 1], [0, 2], [0.1, 0.2])
    with pytest.raises(TaijiError, match="finite"):
        Rows.of([0, 1], [0, 1], [0.1, np.nan])
    with pytest.raises(TaijiError, match="length"):
        Rows.of([0, 1], [0, 1], [0.1])
    assert np.isnan(auc([], []))
