import torch

from taiji.models.ranking.din import ActivationUnit


def test_the_pooled_history_is_the_written_out_sum_and_padding_counts_nothing():
    torch.manual_seed(0)
    unit, items = ActivationUnit(3, 5).double(), torch.randn(6, 3).double()
    sequence, item = torch.tensor([[2, 4, 0], [5, 0, 0]]), torch.tensor([1, 3, 1, 2])  # two candidates of each request
    found = unit(items, item, sequence)
    for row in range(4):
        query, expected = items[item[row]], torch.zeros(3).double()
        for place in sequence[row // 2]:
            if place:
                key = items[place]
                expected += unit.weigh(torch.cat([query, key, query - key, query * key])) * key
        torch.testing.assert_close(found[row], expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(unit(items, item, torch.zeros_like(sequence)), torch.zeros(4, 3).double())
