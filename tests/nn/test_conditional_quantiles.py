"""Quantiles never cross, ranks keep the order, and the pinball loss is least at the quantile."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from taiji.nn.conditional_quantiles import QuantileNetwork, fit_quantiles, interpolated_ranks, pinball

LEVELS = (np.arange(9) + 0.5) / 9


@given(seed=st.integers(0, 1000), size=st.sampled_from([0.1, 10.0, 1000.0]))
def test_quantiles_never_cross(seed, size):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = QuantileNetwork(3, 2, 9, width=8).double()
        for weight in network.parameters():
            weight.data.normal_(0, 3)
        found = network(size * torch.randn(50, 3, dtype=torch.float64))
    assert found.shape == (50, 2, 9) and (found.diff(dim=-1) > 0).all()


@given(seed=st.integers(0, 1000))
def test_ranks_keep_the_order_far_outside_too_and_are_the_levels_at_the_quantiles(seed):
    random = np.random.default_rng(seed)
    quantiles = np.sort(random.normal(size=9))
    values = np.sort(np.concatenate([np.linspace(-6, 6, 200), quantiles]))
    ranks = interpolated_ranks(values, np.broadcast_to(quantiles, (len(values), 9)), LEVELS)
    assert (ranks >= 0).all() and (ranks <= 1).all()
    assert (np.diff(ranks) >= 0).all()
    inner = (values >= quantiles[0]) & (values <= quantiles[-1])
    assert (np.diff(ranks[inner])[np.diff(values[inner]) > 1e-9] > 0).all()
    np.testing.assert_allclose(interpolated_ranks(quantiles, np.tile(quantiles, (9, 1)), LEVELS), LEVELS, atol=1e-14)


def test_pinball_is_least_at_the_quantile():
    values = torch.as_tensor(np.random.default_rng(0).exponential(size=999))
    tries = torch.linspace(0.01, 4, 400, dtype=torch.float64)
    tau = torch.tensor([0.8], dtype=torch.float64)
    losses = [float(pinball(t.expand(999, 1), values, tau)) for t in tries]
    assert abs(float(tries[int(np.argmin(losses))]) - float(np.quantile(values, 0.8))) < 0.011
    by_hand = np.where(values > 1, 0.8 * (values - 1), 0.2 * (1 - values)).mean()
    np.testing.assert_allclose(float(pinball(torch.ones(999, 1), values, tau)), by_hand, rtol=1e-12)


def test_first_quantile_may_be_negative():
    random = np.random.default_rng(1)
    values = random.normal(-5, 1, (500, 1))
    network = fit_quantiles(np.zeros((500, 1)), values, LEVELS, width=4, steps=20, batch=64, rate=1e-3, seed=0)
    found = network(torch.zeros(1, 1, dtype=torch.float64))[0, 0].detach().numpy()
    np.testing.assert_allclose(found, np.quantile(values, LEVELS), atol=0.3)
