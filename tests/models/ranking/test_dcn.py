import torch

from taiji.models.ranking.dcn import CrossLayer


def test_a_cross_is_the_written_out_product():
    torch.manual_seed(0)
    layer, first, current = CrossLayer(4).double(), torch.randn(3, 4).double(), torch.randn(3, 4).double()
    weight, bias = layer.linear.weight, layer.linear.bias
    for row in range(3):
        expected = [
            first[row, i] * (sum(weight[i, j] * current[row, j] for j in range(4)) + bias[i]) + current[row, i]
            for i in range(4)
        ]
        torch.testing.assert_close(layer(first, current)[row], torch.stack(expected), rtol=1e-12, atol=1e-12)
