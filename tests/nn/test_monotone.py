"""Exact integrals against the antiderivative, derivatives against the integrand, no violation, and where quadrature has
some."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.polynomial.legendre import leggauss

from taiji.nn.monotone import MonotoneFunctions, grid_integral


def test_integral_is_that_of_the_straight_lines():
    random = np.random.default_rng(0)
    integrand = torch.as_tensor(random.exponential(size=9))
    values = torch.as_tensor(np.concatenate([random.random(60), [0.0, 0.25, 1.0]]))
    found = grid_integral(values, integrand.expand(63, 9)).numpy()
    fine = [np.linspace(0, x, 200_001) for x in values.numpy()[:3]]
    by_sum = [np.trapezoid(np.interp(t, np.linspace(0, 1, 9), integrand), t) for t in fine]
    np.testing.assert_allclose(found[:3], by_sum, rtol=1e-8)
    knots = np.linspace(0, 1, 9)
    for x, value in zip(values.numpy(), found):
        inner = np.concatenate([knots[knots < x], [x]])
        exact = np.trapezoid(np.interp(inner, knots, integrand), inner)
        np.testing.assert_allclose(value, exact, rtol=1e-13, atol=1e-15)
    outer = grid_integral(torch.tensor([-2.0, 3.0], dtype=torch.float64), integrand.expand(2, 9))
    total = float(grid_integral(torch.ones(1, dtype=torch.float64), integrand[None])[0])
    np.testing.assert_allclose(outer, [-2 * integrand[0], total + 2 * integrand[-1]], rtol=1e-14)


def test_derivative_is_the_integrand():
    integrand = torch.as_tensor(np.random.default_rng(1).exponential(size=(50, 9)))
    values = torch.as_tensor(np.random.default_rng(2).uniform(0.01, 0.99, 50)).requires_grad_()
    (slope,) = torch.autograd.grad(grid_integral(values, integrand).sum(), values)
    lines = [np.interp(x, np.linspace(0, 1, 9), f) for x, f in zip(values.detach(), integrand)]
    np.testing.assert_allclose(slope, lines, rtol=1e-12)
    integrand.requires_grad_()
    assert torch.autograd.gradcheck(lambda f: grid_integral(values.detach(), f), (integrand,))


def test_no_violation_in_a_million_neighbours_to_the_last_bit():
    random = np.random.default_rng(3)
    integrand = torch.as_tensor(np.exp(random.normal(0, 3, (1000, 17))))
    start = random.uniform(-0.2, 1.2, (1000, 500))
    step = start + 10.0 ** random.uniform(-17, -1, start.shape)
    pairs = torch.as_tensor(np.stack([start, step, np.nextafter(step, 9)], axis=-1))
    found = grid_integral(pairs, integrand[:, None, None, :].expand(*pairs.shape, 17))
    assert (found.diff(dim=-1) >= 0).all()


@given(seed=st.integers(0, 300))
def test_functions_rise_whatever_their_weights(seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        functions = MonotoneFunctions(3, 4, grid=5, width=6).double()
        for weight in functions.parameters():
            weight.data.normal_(0, 4)
        told = torch.randn(2, 4, dtype=torch.float64)
    values = torch.linspace(-0.5, 1.5, 400, dtype=torch.float64)[None, :, None].expand(2, 400, 3)
    assert (functions(values, told).diff(dim=1) > 0).all()


def test_quadrature_with_nodes_that_move_is_not_monotone():
    """The known trap: a positive integrand that is sharper than the nodes gives a falling sum; the grid cannot."""
    nodes, weights = leggauss(32)

    def integrand(t):
        return 1e-3 + np.exp(-(((t - 0.5) / 0.005) ** 2))

    ends = np.linspace(0.55, 1, 400)
    moving = np.array([x / 2 * (weights @ integrand(x * (nodes + 1) / 2)) for x in ends])
    assert (np.diff(moving) < -1e-4).any()
    grid = torch.as_tensor(integrand(np.linspace(0, 1, 33)))
    assert (grid_integral(torch.as_tensor(ends), grid.expand(400, 33)).diff() > 0).all()
