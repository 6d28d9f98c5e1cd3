"""The scale is normal for everybody, and keeps every order."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from taiji.nn.normal_scale import normal_scores, scale_knots


@given(seed=st.integers(0, 500), distinct=st.sampled_from([1, 2, 5, 1000]))
def test_order_is_kept_outside_too(seed, distinct):
    random = np.random.default_rng(seed)
    values = np.exp(random.normal(0, 2, distinct))[random.integers(0, distinct, 300)]
    tried = np.sort(np.concatenate([values, random.uniform(-3, 30, 200)]))
    assert (np.diff(normal_scores(tried, scale_knots(values))) >= 0).all()


def test_everybody_is_normal():
    values = np.exp(np.random.default_rng(0).normal(3, 1, 20_000))
    scores = normal_scores(values, scale_knots(values))
    np.testing.assert_allclose(np.quantile(scores, [0.025, 0.5, 0.975]), [-1.96, 0, 1.96], atol=0.03)
