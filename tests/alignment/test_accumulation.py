"""One step's gradients: the update kept in place of a reward's gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from taiji.alignment.accumulation import AccumulationStep
from taiji.alignment.recording import Forward, Recording


def filled(estimator: str, weights: list[float], **options) -> tuple[AccumulationStep, torch.Tensor, torch.Tensor]:
    """A step over a linear map, its rewards' derivatives (K, B, T) and the map's rows (B, T, P)."""
    generator = torch.Generator().manual_seed(0)
    theta = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    rows = torch.randn(4, 3, 5, generator=generator, dtype=torch.float64)
    rewards = torch.randn(len(weights), 4, 3, generator=generator, dtype=torch.float64)
    ids = torch.arange(4)[:, None]

    def function(model, chosen, mask, keep, *, padded):
        return rows[chosen[:, 0]] @ theta, None, None

    step = AccumulationStep([theta], len(weights), estimator, False, [1.0] * len(weights), weights, **options)
    halves = torch.tensor([0, 1, 0, 1]) if estimator == "cross-batch" and step.halves == 2 else None
    recording = Recording(torch.nn.Identity(), halves)
    recording.replayed(Forward(function, torch.nn.Identity(), ids, ids, 3, {}))
    given = (rewards[0] * 0 + 1, None, None) if options.get("given") else None
    step.add(recording, [(r, None, None) for r in rewards], None, given)
    return step, rewards, rows


@pytest.mark.parametrize("options", [{}, {"fresh": True}, {"given": True}], ids=["known", "fresh", "given"])
@pytest.mark.parametrize("estimator", ["same-batch", "cross-batch"])
def test_gram_matrix_and_update_whatever_is_kept(estimator, options):
    weights = [0.2, 0.5, 0.3]
    step, rewards, rows = filled(estimator, weights, **options)
    parts = [[0, 2], [1, 3]] if estimator == "cross-batch" else [range(4)]
    halves = [torch.einsum("kbt,btp->kp", rewards[:, list(p)], rows[list(p)]) for p in parts]
    whole = sum(halves)
    seen = step.close(1e-3)
    exact = whole @ whole.T if len(halves) == 1 else 2 * (halves[0] @ halves[1].T + halves[1] @ halves[0].T)
    assert np.allclose(seen.gram, exact, atol=1e-12)
    assert seen.square_norm == pytest.approx(float((whole**2).sum(1).mean()))
    update = rows.sum((0, 1)) if "given" in options else torch.tensor(weights, dtype=torch.float64) @ whole
    assert torch.allclose(step.gradient(weights)[0], update, atol=1e-12)
    assert (step.replaced == 1) == (not options)


@pytest.mark.parametrize("options", [{}, {"given": True}], ids=["weighted", "given"])
@pytest.mark.parametrize("estimator", ["same-batch", "cross-batch", "directional"])
def test_a_step_that_is_not_observed_only_updates(estimator, options):
    weights = [0.2, 0.5, 0.3]
    step, rewards, rows = filled(estimator, weights, observed=False, **options)
    assert step.close(1e-3) is None and step.finite and len(step.sums.flat[0]) == 1
    whole = torch.einsum("kbt,btp->kp", rewards, rows)
    update = rows.sum((0, 1)) if "given" in options else torch.tensor(weights, dtype=torch.float64) @ whole
    assert torch.allclose(step.gradient(weights)[0], update, atol=1e-12)


def test_rewards_that_nothing_has_are_not_present():
    step, _, _ = filled("same-batch", [0.5, 0.5])
    assert step.close(1e-3).present == (True, True)
    step.applies[1] = 0
    assert step.close(1e-3).present == (True, False)
