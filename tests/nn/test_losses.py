import numpy as np
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from taiji.nn.losses import multitask_loss, platt


@hypothesis_settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), weight=st.sampled_from([0.0, 0.5, 2.0]))
def test_equals_the_written_out_loss(seed, weight):
    random = np.random.default_rng(seed)
    a, b = random.normal(size=(2, 30)) * 3
    click = random.integers(0, 2, 30).astype(float)
    ctcvr = click * random.integers(0, 2, 30)
    ctcvr[random.random(30) < 0.3] = np.nan
    p, q = 1 / (1 + np.exp(-a)), 1 / (1 + np.exp(-b))
    known = np.isfinite(ctcvr)
    expected = -np.mean(click * np.log(p) + (1 - click) * np.log(1 - p))
    product, label = (p * q)[known], ctcvr[known]
    expected += weight * -np.mean(label * np.log(product) + (1 - label) * np.log(1 - product))
    got = multitask_loss(*(torch.tensor(x) for x in (a, b, click, ctcvr)), weight)
    assert abs(float(got) - expected) < 1e-9


def test_extreme_logits_stay_finite_and_unknown_rows_get_no_gradient():
    a, b = torch.tensor([60.0, -60.0, 60.0], requires_grad=True), torch.tensor([60.0, 60.0, -60.0], requires_grad=True)
    loss = multitask_loss(a, b, torch.tensor([0.0, 1.0, 1.0]), torch.tensor([0.0, torch.nan, 1.0]), 1.0)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(a.grad).all() and b.grad[1] == 0
    assert torch.isfinite(multitask_loss(a, b, torch.full((3,), torch.nan), torch.full((3,), torch.nan), 1.0))


def test_calibration_finds_the_scale_and_shift():
    random = np.random.default_rng(0)
    truth = random.normal(size=40_000)
    labels = (random.random(40_000) < 1 / (1 + np.exp(-truth))).astype(float)
    labels[::10] = np.nan
    scale, shift = platt((truth - 0.5) * 2, labels)
    assert abs(scale - 0.5) < 0.03 and abs(shift - 0.5) < 0.05
    assert platt(truth, np.zeros(40_000)) == (1.0, 0.0)
    assert platt(-truth, labels) == (1.0, 0.0)
