import torch

from taiji.nn.optimisers import RowAdagrad


def test_touches_only_the_rows_of_the_batch_and_follows_the_rule():
    torch.manual_seed(0)
    table = torch.nn.Embedding(10, 3, sparse=True)
    before = table.weight.detach().clone()
    optimiser = RowAdagrad([table.weight], lr=0.1)
    total = torch.zeros(10)
    expected = before.clone()
    for rows in ([1, 4], [4, 7]):
        optimiser.zero_grad()
        weights = torch.randn(2, 3)
        (table(torch.tensor(rows)) * weights).sum().backward()
        optimiser.step()
        for row, gradient in zip(rows, weights):
            total[row] += gradient.square().mean()
            expected[row] -= 0.1 * gradient / total[row].sqrt()
    assert torch.allclose(table.weight, expected, atol=1e-6)
    untouched = [0, 2, 3, 5, 6, 8, 9]
    assert torch.equal(table.weight[untouched], before[untouched])
