"""One length whatever comes in, blind to order and padding."""

import torch

from taiji.nn.query_compressor import QueryCompressor


def test_length_order_and_padding():
    torch.manual_seed(0)
    compressor = QueryCompressor(8, heads=2, queries=3).double()
    x = torch.randn(2, 6, 8, dtype=torch.float64)
    mask = torch.tensor([[True] * 4 + [False] * 2, [False] * 6])
    found = compressor(x, mask)
    assert found.shape == (2, 3, 8)
    order = torch.tensor([3, 1, 0, 2])
    torch.testing.assert_close(compressor(x[:1, order], mask[:1, :4]), found[:1], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(compressor(x[1:, :0], mask[1:, :0]), found[1:], rtol=1e-12, atol=1e-12)  # of nothing
    assert not torch.allclose(found[0], found[1])
