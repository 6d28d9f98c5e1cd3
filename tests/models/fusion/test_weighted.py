"""Closed forms, the contract, and ranks against a loop."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taiji.core.component import Requests
from taiji.core.errors import ConfigError, InputError
from taiji.models.fusion.weighted import LinearFusion, LogLinearFusion, RankAverage, exceeded
from taiji.testing import check_fuser

WEIGHTS = {"click": 2.0, "skip": -0.5}


@pytest.mark.parametrize("kind", [LinearFusion, LogLinearFusion])
def test_contract_with_its_declared_directions(kind):
    check_fuser(kind(WEIGHTS), ["click", "skip", "other"], monotone={"click": 1, "skip": -1})


def test_contract_of_ranks():
    check_fuser(RankAverage(WEIGHTS), ["click", "skip"])


def test_closed_forms():
    predictions = {"click": np.array([[0.5, 0.25]]), "skip": np.array([[0.1, 0.0]])}
    requests = Requests([0], [0])
    np.testing.assert_allclose(LinearFusion(WEIGHTS).fuse(predictions, requests), [[0.95, 0.5]])
    product = np.exp(LogLinearFusion(WEIGHTS).fuse(predictions, requests))
    np.testing.assert_allclose(product, [[0.5**2 * 0.1**-0.5, 0.25**2 * 1e-9**-0.5]])
    np.testing.assert_allclose(RankAverage(WEIGHTS).fuse(predictions, requests), [[1.5, 0.0]])


@given(seed=st.integers(0, 1000))
def test_exceeded_agrees_with_a_loop(seed):
    random = np.random.default_rng(seed)
    values = random.integers(0, 4, (3, 6)).astype(float)
    values[random.random((3, 6)) < 0.2] = np.nan
    found = exceeded(values)
    for row, own in zip(values, found):
        known = row[np.isfinite(row)]
        for value, share in zip(row, own):
            if np.isnan(value) or len(known) < 2:
                assert share == 0
            else:
                expected = ((known < value).sum() + ((known == value).sum() - 1) / 2) / (len(known) - 1)
                assert share == pytest.approx(expected)


def test_wrong_settings():
    with pytest.raises(ConfigError, match="has no weight, or a weight that is 0"):
        LinearFusion({"click": 0.0})
    with pytest.raises(InputError, match="missing"):
        LinearFusion(WEIGHTS).fuse({"click": np.zeros((1, 1))}, Requests([0], [0]))
