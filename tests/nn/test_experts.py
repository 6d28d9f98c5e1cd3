"""Against a loop over tokens; the bias evens the load without a loss."""

import numpy as np
import torch
from torch.nn import functional

from taiji.nn.experts import Experts


def test_equals_a_loop_over_tokens():
    torch.manual_seed(0)
    layer = Experts(4, 6, experts=5, chosen=2).double().eval()
    layer.bias.copy_(torch.randn(5))
    x = torch.randn(3, 7, 4, dtype=torch.float64)
    found = layer(x)
    for token, out in zip(x.flatten(0, 1), found.flatten(0, 1)):
        affinity = torch.sigmoid(layer.router @ token)
        best = torch.argsort(affinity + layer.bias, descending=True)[:2]
        expected = torch.zeros(4, dtype=torch.float64)
        for expert in best:
            hidden = functional.gelu(token @ layer.first[expert] + layer.first_bias[expert])
            share = affinity[expert] / affinity[best].sum()
            expected += share * (hidden @ layer.second[expert] + layer.second_bias[expert])
        torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-12)


def test_balancing_evens_the_load_and_not_the_weights():
    torch.manual_seed(0)
    layer = Experts(8, 4, experts=4, chosen=1, step=0.02).train()
    x = (
        torch.randn(512, 8) + 2 * layer.router[0].detach() / layer.router[0].detach().norm()
    )  # the first expert is everybody's
    shares = []
    for _ in range(200):
        layer(x)
        shares.append((layer.load / layer.load.sum()).numpy().copy())
        layer.balance()
    uneven = [float((share * np.log(np.maximum(share, 1e-9) * 4)).sum()) for share in shares]  # KL to uniform
    assert uneven[0] > 0.3 and max(uneven[-20:]) < 0.02
    assert layer.bias[0] < 0 and layer.bias.grad is None
    assert float(layer.load.sum()) == 0
