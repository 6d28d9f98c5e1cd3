"""Intervals: exact under known weights, reproducible, and right as often as they say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taiji.core.errors import TaijiError
from taiji.metrics.bootstrap import PooledAUC, Ratio, compare, distribution, estimate, resample_weights
from taiji.metrics.ranking_metrics import AUC, RANKING_METRICS, LogLoss, Rows


def sample(seed, users=30, rows=400):
    rng = np.random.default_rng(seed)
    who = rng.integers(users, size=rows)
    scores = np.round(rng.random(rows), 1).clip(0.05, 0.95)
    return Rows.of(who, rng.random(rows) < scores, scores, rng.integers(5, size=rows))


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_a_weight_is_a_number_of_copies_of_the_users_rows(seed):
    rows = sample(seed, users=6, rows=60)
    weights = np.random.default_rng(seed).integers(0, 3, size=(1, rows.n_users)).astype(float)
    copies = np.repeat(np.arange(len(rows.users)), weights[0].astype(int)[rows.users])
    if len(copies) == 0:
        return
    for metric in (AUC(), LogLoss()):
        repeated = Rows.of(rows.users[copies], rows.labels[copies], rows.scores[copies])
        np.testing.assert_allclose(metric.statistic(rows)(weights)[0], metric.calc(repeated))


def test_unit_weights_give_the_value_itself_for_every_metric():
    rows = sample(3)
    for metric in RANKING_METRICS:
        assert estimate(metric.statistic(rows), resamples=50)["value"] == metric.calc(rows)


def test_resampling_is_seeded_and_draws_as_many_users_as_there_are():
    first, again, other = (np.concatenate(list(resample_weights(7, 40, seed))) for seed in (1, 1, 2))
    assert first.shape == (40, 7) and (first.sum(1) == 7).all()
    assert (first == again).all() and (first != other).any()


def test_blocks_do_not_change_the_draws(monkeypatch):
    whole = np.concatenate(list(resample_weights(11, 30, 5)))
    monkeypatch.setattr("taiji.metrics.bootstrap.CELLS", 40)
    parts = list(resample_weights(11, 30, 5))
    assert len(parts) == 10
    assert (np.concatenate(parts) == whole).all()


def test_pairing_removes_what_the_arms_share():
    rng = np.random.default_rng(0)
    common = rng.normal(size=200) * 10
    first, second = Ratio.of_values(common + 1 + 0.1 * rng.normal(size=200)), Ratio.of_values(common)
    paired, alone = compare(first, second), estimate(first)
    assert paired["low"] > 0.9 and paired["high"] < 1.1
    assert alone["high"] - alone["low"] > 2


def test_an_arm_against_itself_differs_by_exactly_nothing():
    statistic = AUC().statistic(sample(1))
    assert compare(statistic, statistic) == {"value": 0.0, "low": 0.0, "high": 0.0, "n": 30, "method": "identity"}


@pytest.mark.parametrize("level", [0.8, 0.95], ids=["80%", "95%"])
def test_intervals_over_users_cover_at_their_level_where_rows_are_dependent(level):
    """Users differ in their mean, so row-wise intervals would be far too narrow; ours are over users."""
    rng, covered, trials = np.random.default_rng(0), 0, 300
    for trial in range(trials):
        users = np.repeat(np.arange(60), 10)
        values = rng.normal(size=60)[users] + rng.normal(size=600)
        found = estimate(Ratio.of_rows(users, values, 60), resamples=400, level=level, seed=trial)
        covered += found["low"] <= 0 <= found["high"]
    assert covered / trials == pytest.approx(level, abs=0.06)


def test_the_interval_of_the_pooled_auc_covers():
    """Scores N(1,1) against N(0,1) give AUC Φ(1/√2) = 0.7602; user effects shift a user's scores together."""
    rng, covered, trials = np.random.default_rng(1), 0, 200
    labels = np.tile([0, 1], 200)
    users = np.repeat(np.arange(50), 8)
    for trial in range(trials):
        scores = labels + rng.normal(size=400)
        found = estimate(PooledAUC(users, labels, scores, 50), resamples=300, level=0.9, seed=trial)
        covered += found["low"] <= 0.76025 <= found["high"]
    assert covered / trials == pytest.approx(0.9, abs=0.07)


def test_no_hit_at_all_is_not_certainty():
    found = estimate(Ratio.of_values(np.zeros(20), proportion=True))
    assert found["low"] == 0 and found["high"] == pytest.approx(1 - 0.025 ** (1 / 20))
    assert found["method"] == "exact binomial"
    perfect = estimate(Ratio.of_values(np.ones(20), proportion=True))
    assert perfect["high"] == 1 and perfect["low"] == pytest.approx(0.025 ** (1 / 20))


def test_too_little_data_gives_no_interval_instead_of_a_false_one():
    assert estimate(Ratio.of_values(np.array([0.3, np.nan]))) == {
        "value": 0.3,
        "low": None,
        "high": None,
        "n": 1,
        "reason": "too few users to tell (1, needed 10)",
    }
    assert estimate(Ratio.of_values(np.full(3, np.nan)))["value"] is None
    only_positives = PooledAUC(np.array([0, 1]), np.array([1, 1]), np.array([0.1, 0.2]), 2)
    assert estimate(only_positives)["value"] is None


def test_statistics_over_different_users_are_refused():
    with pytest.raises(TaijiError, match="different users"):
        distribution([Ratio.of_values(np.ones(3)), Ratio.of_values(np.ones(4))])
