"""Products depend on distances alone."""

import torch

from taiji.nn.rotary import turned, turns


def test_products_depend_on_distances_alone():
    torch.manual_seed(0)
    query, key = torch.randn(2, 8, dtype=torch.float64)
    places = torch.arange(20)
    at = turns(places, 8, query)
    products = turned(query, at) @ turned(key, at).T
    for distance in range(-5, 6):
        diagonal = products.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand(len(diagonal)), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(turned(query, at).norm(dim=1), query.norm().expand(20), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(products[0, 0], query @ key, rtol=1e-12, atol=1e-12)
