"""Estimators against explicit gradients, float64."""

from __future__ import annotations

import pytest
import torch

from taiji.alignment.gram import (
    GradientSums,
    cross_gram,
    directional_step,
    gram,
    inner_products,
    perturbed_change,
    square_norm,
)


@pytest.fixture
def problem():
    """A small network with K losses over N rows, float64."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 3)).double()
    rows, targets = torch.randn(12, 5).double(), torch.randn(12, 3).double()

    def losses(chosen: torch.Tensor) -> list[torch.Tensor]:
        output = network(rows[chosen])
        return [((output[:, k] - targets[chosen, k]) ** 2).sum() / len(rows) for k in range(3)]

    return network, list(network.parameters()), losses


def gradients(losses, parameters):
    return [list(torch.autograd.grad(loss, parameters, retain_graph=True)) for loss in losses]


def flat(gradient):
    return torch.cat([g.reshape(-1) for g in gradient])


def stacked(gradients):
    return torch.stack([flat(gradient) for gradient in gradients])


def test_gram_is_explicit_inner_products(problem, monkeypatch):
    _, parameters, losses = problem
    found = gradients(losses(torch.arange(12)), parameters)
    explicit = torch.stack([flat(g) for g in found])
    assert torch.allclose(gram(stacked(found)), explicit @ explicit.T, atol=1e-14)
    monkeypatch.setattr("taiji.alignment.gram.BLOCK", 3)
    assert torch.allclose(gram(stacked(found)), explicit @ explicit.T, atol=1e-14), "blocks do not matter"


def test_accumulation_sums_gradients_not_gram_matrices(problem):
    _, parameters, losses = problem
    sums = GradientSums(parameters, 3, 1)
    for chosen in torch.arange(12).split(4):
        for k, gradient in enumerate(gradients(losses(chosen), parameters)):
            sums.add(0, k, gradient)
    whole = gradients(losses(torch.arange(12)), parameters)
    assert torch.allclose(gram(sums.totals()), gram(stacked(whole)), atol=1e-13)
    added = sum(gram(stacked(gradients(losses(chosen), parameters))) for chosen in torch.arange(12).split(4))
    assert not torch.allclose(added, gram(stacked(whole)), rtol=0.1)
    weights = [0.2, 0.3, 0.5]
    expected = sum(w * flat(g) for w, g in zip(weights, whole))
    assert torch.allclose(flat(sums.combined(weights)), expected, atol=1e-13)


def test_cross_gram_of_a_noiseless_split_is_the_gram_matrix(problem):
    _, parameters, losses = problem
    whole = gradients(losses(torch.arange(12)), parameters)
    third = [[g / 4 for g in gradient] for gradient in whole]
    rest = [[3 * g / 4 for g in gradient] for gradient in whole]
    assert torch.allclose(
        cross_gram(inner_products(stacked(third), stacked(rest)), (0.25, 0.75)), gram(stacked(whole)), atol=1e-13
    )


def test_cross_gram_is_unbiased_where_the_same_batch_is_not():
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(2, 6, generator=generator).double()
    same, cross = torch.zeros(2, 2).double(), torch.zeros(2, 2).double()
    for _ in range(3000):
        halves = [(truth + torch.randn(2, 6, generator=generator).double() * 3) / 2 for _ in range(2)]
        same += gram(halves[0] + halves[1]) / 3000
        cross += cross_gram(inner_products(*halves)) / 3000
    exact = truth @ truth.T
    assert (cross - exact).abs().max() < 2.0
    assert (same - exact).diagonal().min() > 20.0, "6 dimensions, noise variance 9 / 2 each"


def test_parameters_without_gradient_stay_without():
    parameters = [torch.zeros(2), torch.zeros(3)]
    sums = GradientSums(parameters, 1, 1)
    sums.add(0, 0, [torch.ones(2), None])
    assert sums.combined([2.0])[1] is None and torch.equal(sums.combined([2.0])[0], torch.full((2,), 2.0))


def test_directional_derivative_matches_autograd_and_restores_parameters(problem):
    network, parameters, _ = problem
    before = [p.detach().clone() for p in parameters]
    direction = [torch.randn_like(p) for p in parameters]
    rows = torch.randn(4, 5).double()
    step = directional_step(float(square_norm(parameters)), float(square_norm(direction)), 1e-5)
    change = perturbed_change(parameters, direction, step, lambda: [network(rows)])[0]
    _, exact = torch.autograd.functional.jvp(
        lambda *values: torch.func.functional_call(
            network, dict(zip(dict(network.named_parameters()), values)), (rows,)
        ),
        tuple(parameters),
        tuple(direction),
    )
    assert torch.allclose(change, exact, rtol=1e-7, atol=1e-9)
    assert all(torch.equal(a, b) for a, b in zip(before, parameters))
    assert square_norm(parameters) == pytest.approx(float(flat(before).square().sum()))
    assert directional_step(1.0, 0.0, 1e-5) == 0
