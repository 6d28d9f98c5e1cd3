import torch
from torch.nn import functional

from taiji.nn.lookup import add_rows, look_up


def test_values_and_gradients_are_those_of_embedding():
    generator = torch.Generator().manual_seed(0)
    ours = torch.randn(7, 3, generator=generator, dtype=torch.float64).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    index = torch.randint(0, 7, (5, 4), generator=generator)  # rows asked several times, and rows never asked
    weights = torch.randn(5, 4, 3, generator=generator, dtype=torch.float64)
    values = look_up(ours, index)
    assert torch.equal(values, functional.embedding(index, theirs))
    (values * weights).sum().backward()
    (functional.embedding(index, theirs) * weights).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(lambda table: look_up(table, index), [ours.detach().requires_grad_()])


def test_rows_are_added_as_often_as_they_occur():
    table = torch.zeros(3, 2)
    add_rows(table, torch.tensor([2, 0, 2]), torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), alpha=-1.0)
    assert table.tolist() == [[-3.0, -4.0], [0.0, 0.0], [-6.0, -8.0]]


def test_nothing_is_recorded_where_no_gradient_is_asked():
    table = torch.randn(4, 2, requires_grad=True)
    with torch.no_grad():
        assert not look_up(table, torch.tensor([1])).requires_grad
    assert not look_up(table.detach(), torch.tensor([1])).requires_grad
