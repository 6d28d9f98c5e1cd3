"""Intervals: right as often as they say, exact where they can be, and the reason where there is none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taiji.metrics.bootstrap import PooledAUC, Ratio
from taiji.metrics.concordance import PooledConcordance
from taiji.metrics.exact import binomial_interval
from taiji.metrics.intervals import FEWEST, compare, estimate
from taiji.metrics.ranking_metrics import AUC, Calibration, LogLoss, Rows, UserAUC
from taiji.metrics.value_metrics import RMSE, XAUC, RequestXAUC, UserXAUC


def sample(seed, users=30, rows=400):
    rng = np.random.default_rng(seed)
    who = rng.integers(users, size=rows)
    scores = np.round(rng.random(rows), 1).clip(0.05, 0.95)
    return Rows.of(who, rng.random(rows) < scores, scores, rng.integers(5, size=rows))


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


@pytest.mark.parametrize("scale", [1.0, 1e-13], ids=["one", "tiny"])
def test_the_unit_of_scores_and_labels_changes_no_difference(scale):
    rng = np.random.default_rng(0)
    users, labels = np.repeat(np.arange(40), 5), rng.integers(0, 2, 200).astype(float)
    first, second = labels + rng.random(200), 1 - labels + rng.random(200)
    auc = [PooledAUC(users, labels, scale * scores, 40) for scores in (first, second)]
    assert compare(*auc)["value"] > 0.9 and "method" not in compare(*auc)
    errors = [np.bincount(users, (scores - labels) ** 2) for scores in (first, second)]
    found = compare(*(Ratio.of_values(scale * error) for error in errors))
    assert found["value"] == pytest.approx(scale * (errors[0].mean() - errors[1].mean()))
    assert found["low"] < found["value"] < found["high"]


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
        "reason": "too few users (1; at least 10 are needed)",
    }
    assert estimate(Ratio.of_values(np.full(3, np.nan)))["value"] is None
    only_positives = PooledAUC(np.array([0, 1]), np.array([1, 1]), np.array([0.1, 0.2]), 2)
    assert estimate(only_positives)["value"] is None


@pytest.mark.parametrize("n", [2, 4, 8, 9])
def test_fewer_than_ten_users_give_a_reason_and_no_interval(n):
    values = np.random.default_rng(n).normal(size=n)
    found = estimate(Ratio.of_values(values))
    assert (found["low"], found["high"]) == (None, None)
    assert found["reason"] == f"too few users ({n}; at least 10 are needed)"
    gap = compare(Ratio.of_values(values + 1), Ratio.of_values(values))
    assert (gap["low"], gap["high"], gap["reason"]) == (None, None, found["reason"])


@pytest.mark.parametrize("n", [4, 8, 200])
@pytest.mark.parametrize("step", [0.0, 0.25], ids=["equal", "shifted"])
def test_equal_values_are_no_certainty_however_many(n, step):
    """Loss values know no bounds, so equal ones bear no interval; shares lie in [0, 1], so equal ones bear an exact
    one."""
    loss = Ratio.of_values(np.full(n, 0.5)), Ratio.of_values(np.full(n, 0.5 + step))
    assert estimate(loss[0])["low"] is None and compare(*loss)["low"] is None and compare(*loss)["reason"]
    share = [Ratio(part.numerator, part.denominator, proportion=True) for part in loss]
    alone, gap = estimate(share[0]), compare(share[1], share[0])
    unseen = 1 - 0.025 ** (1 / n)
    assert (alone["low"], alone["high"]) == pytest.approx((0.5 - 0.5 * unseen, 0.5 + 0.5 * unseen))
    if step:
        assert (gap["low"], gap["high"]) == pytest.approx((step * (1 - unseen) - unseen, step * (1 - unseen) + unseen))
    else:
        assert gap["low"] is None and "too few users" in gap["reason"]


def test_a_difference_rests_on_the_users_in_whom_the_arms_differ():
    """Five hits more among a thousand users: resampling would call it shown, a sign test would not (p = 0.06)."""
    more, less = np.zeros(1000), np.zeros(1000)
    more[:5] = 1.0
    gap = compare(Ratio.of_values(more, proportion=True), Ratio.of_values(less, proportion=True))
    assert gap["low"] is None and gap["reason"] == "too few users for which the two differ (5; at least 10 are needed)"


def test_shares_of_hits_have_the_exact_binomial_interval():
    hit = np.r_[np.ones(3), np.zeros(17)]
    found = estimate(Ratio.of_values(hit, proportion=True))
    assert (found["low"], found["high"]) == binomial_interval(3, 20) and found["method"] == "exact binomial"


@pytest.mark.parametrize(
    "metric", [AUC(), UserAUC(), XAUC(), UserXAUC(), RequestXAUC()], ids=lambda metric: metric.name
)
def test_predictions_that_are_all_equal_are_worth_one_half_by_identity(metric):
    rows = sample(2)
    tied = Rows(rows.users, rows.labels, np.full(len(rows.users), 0.3), rows.requests, rows.n_users)
    found = estimate(metric.statistic(tied))
    assert (found["value"], found["low"], found["high"], found["method"]) == (0.5, 0.5, 0.5, "identity")
    gap = compare(metric.statistic(rows), metric.statistic(tied))
    assert gap["low"] < gap["value"] < gap["high"]


@pytest.mark.parametrize("metric", [AUC(), XAUC()], ids=lambda metric: metric.name)
def test_another_scale_of_the_same_order_is_an_identity_for_what_only_orders(metric):
    rows = sample(4)
    other = Rows(rows.users, rows.labels, rows.scores**3, rows.requests, rows.n_users)
    assert compare(metric.statistic(rows), metric.statistic(other))["method"] == "identity"
    assert "method" not in compare(LogLoss().statistic(rows), LogLoss().statistic(other))


@pytest.mark.parametrize("positive_users", [0, 1, 3, 9])
def test_an_auc_rests_on_the_users_with_the_rarer_label(positive_users):
    users, labels = np.repeat(np.arange(100), 3), np.zeros(300)
    labels[: 3 * positive_users : 3] = 1.0
    scores = np.random.default_rng(0).random(300)
    for made in (PooledAUC, PooledConcordance):
        found = estimate(made(users, labels, scores, 100), resamples=100)
        assert found["low"] is None and f"({positive_users}; at least 10 are needed)" in found["reason"]
        assert (found["value"] is None) == (positive_users == 0)


def test_a_perfect_order_is_not_a_certainty():
    users, labels = np.repeat(np.arange(30), 2), np.tile([0.0, 1.0], 30)
    found = estimate(PooledAUC(users, labels, labels + 0.1, 30), resamples=100)
    assert found["value"] == 1.0 and found["low"] is None and found["reason"].startswith("no spread")


def test_a_calibration_without_a_positive_label_is_undefined_with_the_reason():
    rows = Rows.of(np.repeat(np.arange(20), 2), np.zeros(40), np.full(40, 0.1))
    found = estimate(Calibration().statistic(rows))
    assert found["value"] is None and "undefined" in found["reason"]


@given(
    st.integers(0, 10_000),
    st.integers(1, 40),
    st.sampled_from(["same", "two", "many"]),
    st.sampled_from(["hit", "loss"]),
)
@settings(max_examples=60, deadline=None)
def test_no_interval_ever_has_a_width_of_zero_unless_it_is_an_identity(seed, n, kind, scale):
    rng = np.random.default_rng(seed)
    values = {"same": np.full(n, rng.random()), "two": rng.integers(0, 2, n) * 1.0, "many": rng.random(n)}[kind]
    other = values if seed % 2 else rng.permutation(values)
    one, two = (Ratio.of_values(v, proportion=scale == "hit") for v in (values, other))
    for found in (estimate(one, resamples=50), compare(one, two, resamples=50)):
        assert (found["low"] is None) == ("reason" in found)
        if found["low"] is not None:
            assert found["low"] < found["high"] and found["low"] - 1e-12 <= found["value"] <= found["high"] + 1e-12


LAWS = {
    "normal": (lambda rng, n: rng.normal(size=n), 0.0, 0.93),
    "uniform": (lambda rng, n: rng.random(n), 0.5, 0.93),
    "skewed": (lambda rng, n: rng.exponential(size=n), 1.0, 0.85),
    "rare hits": (lambda rng, n: (rng.random(n) < 0.1) * 1.0, 0.1, 0.93),
    "shares": (lambda rng, n: rng.beta(0.3, 0.3, n), 0.5, 0.93),
}


@pytest.mark.parametrize("law", LAWS, ids=list(LAWS))
def test_intervals_of_the_fewest_users_cover_nearly_at_their_level(law):
    draw, truth, least = LAWS[law]
    rng, covered, trials = np.random.default_rng(3), 0, 400
    for trial in range(trials):
        bounded = law in ("rare hits", "shares")
        found = estimate(Ratio.of_values(draw(rng, FEWEST), proportion=bounded), resamples=1000, seed=trial)
        covered += found["low"] <= truth <= found["high"]
    assert covered / trials >= least - 0.02


def test_two_models_alike_in_distribution_are_called_different_as_rarely_as_the_level_says():
    rng, wrong, trials = np.random.default_rng(4), 0, 400
    for trial in range(trials):
        gap = compare(*(Ratio.of_values(rng.normal(size=FEWEST)) for _ in range(2)), resamples=500, seed=trial)
        wrong += not gap["low"] <= 0 <= gap["high"]
    assert wrong / trials <= 0.08


def test_squared_errors_of_few_users_give_the_reason_too():
    rows = Rows.of(np.arange(5), np.arange(5.0), np.arange(5.0) + 1, kind="count")
    assert "too few users" in estimate(RMSE().statistic(rows))["reason"]
