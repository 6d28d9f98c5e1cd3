"""Resampling: exact under known weights, and reproducible."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taiji.core.errors import TaijiError
from taiji.metrics.bootstrap import Ratio, distribution, resample_weights
from taiji.metrics.intervals import estimate
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


def test_statistics_over_different_users_are_refused():
    with pytest.raises(TaijiError, match="different users"):
        distribution([Ratio.of_values(np.ones(3)), Ratio.of_values(np.ones(4))])
