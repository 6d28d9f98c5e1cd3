"""Off-policy estimates: exact by enumeration, honest in their intervals, close to the truth of a real pair of
policies."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from taiji.core.errors import TaijiError
from taiji.experiments.offpolicy import (
    Logged,
    cross_fitted_rates,
    dr_terms,
    ips_terms,
    snips_terms,
    value_interval,
)

LOGGING = np.array([0.5, 0.3, 0.2])
TARGET = np.array([0.1, 0.2, 0.7])
REWARD = np.array([1.0, 2.0, 4.0])
TRUTH = float(TARGET @ REWARD)


def draw(n, seed, rate=None):
    rng = np.random.default_rng(seed)
    actions = rng.choice(3, size=n, p=LOGGING)
    rewards = REWARD[actions] if rate is None else (rng.random(n) < rate[actions]).astype(float)
    return actions, Logged(rewards, LOGGING[actions], TARGET[actions])


def test_every_estimator_is_exact_on_the_enumerated_log():
    """A log that holds each action exactly as often as its probability says gives the value itself."""
    actions = np.repeat([0, 1, 2], [5, 3, 2])
    log = Logged(REWARD[actions], LOGGING[actions], TARGET[actions])
    wrong_model = np.array([3.0, 0.0, 1.0])
    for terms in (
        ips_terms(log),
        snips_terms(log),
        dr_terms(log, wrong_model[actions], np.full(10, TARGET @ wrong_model)),
    ):
        assert terms.mean() == pytest.approx(TRUTH)


def test_a_right_model_leaves_the_doubly_robust_estimate_without_variance():
    actions, log = draw(50, 0)
    terms = dr_terms(log, REWARD[actions], np.full(50, TRUTH))
    np.testing.assert_allclose(terms, TRUTH)


def test_self_normalisation_keeps_to_the_range_of_rewards():
    _, log = draw(5, 1)
    assert REWARD.min() <= snips_terms(log).mean() <= REWARD.max()
    np.testing.assert_allclose(snips_terms(log).mean(), (log.weights * log.rewards).sum() / log.weights.sum())


def test_effective_rows():
    assert Logged(np.ones(4), np.full(4, 0.5), np.full(4, 0.5)).effective_rows == 4
    assert Logged(np.ones(4), np.full(4, 0.5), np.array([1.0, 0, 0, 0])).effective_rows == 1


def test_intervals_cover_rare_clicks_where_percentiles_do_not():
    rate, covered, trials = np.array([0.004, 0.01, 0.02]), 0, 150
    truth = float(TARGET @ rate)
    for trial in range(trials):
        _, log = draw(3000, trial, rate)
        found = value_interval(ips_terms(log), resamples=200, seed=trial)
        covered += found["low"] <= truth <= found["high"]
    assert covered / trials == pytest.approx(0.95, abs=0.04)


def test_a_row_never_predicts_itself():
    actions, rewards = np.arange(40) % 4, np.zeros(40)
    rewards[0] = 1.0
    with_it = cross_fitted_rates(actions, rewards, 4, strength=1.0)
    rewards[0] = 0.0
    without = cross_fitted_rates(actions, rewards, 4, strength=1.0)
    np.testing.assert_array_equal(with_it[0], without[0])
    assert (with_it != without).any()


def test_bad_propensities_are_explained():
    with pytest.raises(TaijiError, match="propensity"):
        Logged(np.ones(2), np.array([0.5, 0.0]), np.ones(2))
    with pytest.raises(TaijiError, match="length"):
        Logged(np.ones(2), np.ones(3), np.ones(2))
    assert value_interval(np.ones(5))["low"] is None
    with pytest.raises(TaijiError, match="reward"):
        Logged(np.array([1.0, np.nan]), np.ones(2), np.ones(2))
    for wrong in (-0.1, 1.5, np.nan):
        with pytest.raises(TaijiError, match="target probability"):
            Logged(np.ones(2), np.ones(2), np.array([1.0, wrong]))


def test_a_log_without_overlap_has_no_value():
    log = Logged(np.random.default_rng(0).random(50), np.full(50, 0.5), np.zeros(50))
    for terms in (ips_terms(log), snips_terms(log)):
        found = value_interval(terms, log)
        assert (found["value"], found["low"], found["high"]) == (None, None, None)
        assert found["reason"].startswith("no overlap")


def test_a_log_worth_one_row_has_no_interval():
    targets = np.full(2000, 1e-9)
    targets[0] = 1.0
    log = Logged(np.random.default_rng(0).random(2000), np.full(2000, 1 / 2000), targets)
    assert log.effective_rows == pytest.approx(1, abs=0.01)
    for terms in (ips_terms(log), snips_terms(log)):
        found = value_interval(terms, log)
        assert found["low"] is None and "effective sample size 1.0" in found["reason"]


def test_actions_that_the_log_never_takes_are_noticed():
    """Half of what the target policy does is never logged: the weights average one half."""
    rng = np.random.default_rng(1)
    log = Logged(rng.random(400), np.full(400, 0.5), np.full(400, 0.25))
    found = value_interval(ips_terms(log), log)
    assert found["low"] is None and "weights average 0.50" in found["reason"]
    _, whole = draw(400, 2)
    assert whole.no_overlap == ""


@pytest.mark.parametrize(
    ("rewards", "reason"),
    [
        (np.zeros(400), "no spread"),
        (np.eye(1, 400)[0], "1 of 400 differ"),
        (np.arange(5.0), "too few rows (5; at least 10 are needed)"),
    ],
    ids=["no reward", "one reward", "five rows"],
)
def test_few_or_equal_rows_give_no_interval(rewards, reason):
    found = value_interval(rewards)
    assert (found["low"], found["high"]) == (None, None) and reason in found["reason"]


def test_a_reward_model_of_two_rows_is_finite_and_of_one_is_refused():
    assert np.isfinite(cross_fitted_rates(np.array([0, 1]), np.array([0.0, 1.0]), 2)).all()
    with pytest.raises(TaijiError, match="too few rows or folds"):
        cross_fitted_rates(np.array([0]), np.array([1.0]), 2)


def test_each_real_policy_is_estimated_from_the_log_of_the_other(public_data):
    folder = public_data / "open-bandit-small"
    logs = {
        name: pl.read_parquet(folder / f"{name}_all.parquet").select("item_id", "position", "click", "propensity_score")
        for name in ("random", "bts")
    }
    frequency = (
        logs["bts"]
        .group_by("position", "item_id")
        .agg((pl.len() / 1.0).alias("count"))
        .with_columns((pl.col("count") / pl.col("count").sum().over("position")).alias("target"))
    )
    rows = (
        logs["random"]
        .join(frequency, on=["position", "item_id"], how="left")
        .with_columns(pl.col("target").fill_null(0.0))
    )
    towards = {
        "bts": Logged(rows["click"].to_numpy(), rows["propensity_score"].to_numpy(), rows["target"].to_numpy()),
        "random": Logged(
            logs["bts"]["click"].to_numpy(),
            logs["bts"]["propensity_score"].to_numpy(),
            np.full(10_000, 1 / 80),
        ),
    }
    for name, log in towards.items():
        truth = float(logs[name]["click"].mean())
        for terms in (ips_terms(log), snips_terms(log)):
            found = value_interval(terms, resamples=400)
            assert found["low"] <= truth <= found["high"]
