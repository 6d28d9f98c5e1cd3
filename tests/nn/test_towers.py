import pytest
import torch

from taiji.nn.towers import Dropout


@pytest.mark.parametrize("probability", [0.1, 0.5], ids=["tenth", "half"])
def test_dropout_drops_as_often_as_it_says_and_keeps_the_mean(probability):
    torch.manual_seed(0)
    dropout, values = Dropout(probability), torch.ones(1003, 301, requires_grad=True)
    out = dropout(values)
    exact = round(256 * probability) / 256
    assert abs((out == 0).double().mean() - exact) < 0.003
    assert abs(out.double().mean() - 1) < 0.005
    assert out.unique().tolist() == pytest.approx([0, 1 / (1 - exact)])
    columns = (out == 0).double().mean(dim=0)
    assert columns.std() < 2 * (exact * (1 - exact) / 1003) ** 0.5, "places are dropped alike"
    out.sum().backward()
    assert torch.equal(values.grad, out.detach())


def test_dropout_is_off_when_judging_and_follows_the_seed():
    dropout, values = Dropout(0.3), torch.randn(7, 5)
    torch.manual_seed(3)
    first = dropout(values)
    torch.manual_seed(3)
    assert torch.equal(first, dropout(values))
    assert not torch.equal(first, dropout(values))
    assert dropout.eval()(values) is values
    assert Dropout(0.0)(values) is values


def test_a_probability_close_to_one_leaves_a_little():
    values = Dropout(0.999).train()(torch.ones(100_000))
    assert torch.isfinite(values).all() and values.mean() == pytest.approx(1.0, abs=0.3)
