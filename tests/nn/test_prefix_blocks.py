"""A block on a shared prefix is the block on the whole sequence; the query-key norm bounds the logits; the router takes
one."""

import pytest
import torch

from taiji.nn.prefix_blocks import BlockOptions, PrefixBlock
from taiji.nn.rotary import turns
from taiji.nn.shared_prefix import Prefix

D, P, T = 8, 5, 3


def block_of(cross: bool = False, **options) -> PrefixBlock:
    torch.manual_seed(0)
    return PrefixBlock(D, 2, 16, 0.0, cross, BlockOptions(**options)).double().eval()


@pytest.mark.parametrize("options", [{}, {"query_key_norm": True, "gate": True}], ids=["plain", "norm and gate"])
def test_prefix_and_own_tokens_are_one_sequence(options):
    block = block_of(**options)
    if block.gate is not None:
        torch.nn.init.normal_(block.gate.weight)
    x = torch.randn(2, P + T, D, dtype=torch.float64)
    turn = turns(torch.arange(P + T), D // 2, x)
    whole, _ = block.encode(x, turn)
    _, (keys, values) = block.encode(x[:, :P], tuple(part[:P] for part in turn))
    prefix = Prefix(keys, values, torch.ones(2, 1, 1, P, dtype=torch.bool))
    own, cache = block(x[:, None, P : P + 2], tuple(part[P : P + 2] for part in turn), prefix, None)
    last, _ = block(x[:, None, P + 2 :], tuple(part[P + 2 :] for part in turn), prefix, cache)
    torch.testing.assert_close(torch.cat([own, last], dim=2)[:, 0], whole[:, P:], rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_query_key_norm_bounds_the_logits():
    block = block_of(query_key_norm=True)
    torch.nn.init.normal_(block.query_norms[0].weight)
    torch.nn.init.normal_(block.key_norms[0].weight)
    x = 1e3 * torch.randn(1, 50, D, dtype=torch.float64)
    query, key, _ = block._heads(block.projection(x), 3)
    query, key = block._placed(query, key, 0, turns(torch.arange(50), D // 2, x))  # rotary positions mix coordinates
    largest = [float(norm.weight.abs().max()) for norm in (block.query_norms[0], block.key_norms[0])]
    bound = (D // 2) ** 0.5 * largest[0] * largest[1]
    logits = query @ key.transpose(-1, -2) * (D // 2) ** -0.5
    assert float(logits.abs().max()) <= bound * (1 + 1e-9)


def test_the_router_reads_all_or_the_recent_part():
    block = block_of(cross=True, router=True)
    torch.nn.init.normal_(block.router.weight)
    x, memory = torch.randn(2, 6, 1, D, dtype=torch.float64), torch.randn(2, P, D, dtype=torch.float64)
    turn = turns(torch.arange(P), D // 2, x)
    keys, values = block.shared(memory, turn)
    everything, recent = torch.ones(2, 1, 1, P, dtype=torch.bool), torch.arange(P) >= 3
    recent = recent.expand(2, 1, 1, P)
    own = tuple(part[:1] for part in turn)
    found, _ = block(x, own, Prefix(keys, values, everything, recent), None)
    all_of_it, _ = block(x, own, Prefix(keys, values, everything), None)
    part, _ = block(x, own, Prefix(keys, values, recent), None)
    differs = [torch.isclose(found, other, atol=1e-12).all(dim=-1) for other in (all_of_it, part)]
    assert (differs[0] | differs[1]).all() and differs[0].any() and differs[1].any()
    found.sum().backward()
    assert float(block.router.weight.grad.abs().sum()) > 0  # straight through
