"""Products depend on behaviours and distance; after the turn, as released, on the places; padding is not read."""

import pytest
import torch

from taiji.nn.behaviour_encoder import BehaviourAttention, BehaviourBlock, BehaviourEncoder
from taiji.nn.rotary import turns


def normal(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def products(attention, behaviours, shift):
    """Return products (L, L) of one query and one key, put at every place from ``shift`` on, with behaviours' vectors
    (L, d)."""
    torch.manual_seed(1)
    query, key = normal(8), normal(8)
    turn = turns(torch.arange(len(behaviours)) + shift, 4, query)
    left, right = (
        attention._turned(attention._by_head(x.expand(1, len(behaviours), 8)), behaviours[None], turn)
        for x in (query, key)
    )
    return (left @ right.transpose(2, 3))[0]


@pytest.mark.parametrize("constant", [True, False], ids=["one-behaviour", "mixed"])
def test_a_shift_of_all_places_changes_no_product(constant):
    torch.manual_seed(0)
    attention = BehaviourAttention(8, 2, scaled=True, after_turn=False).double()
    behaviours = normal(1, 8).expand(6, 8) if constant else normal(6, 8)
    torch.testing.assert_close(
        products(attention, behaviours, 0), products(attention, behaviours, 7), rtol=0, atol=1e-12
    )


def test_as_released_a_shift_changes_products_even_of_one_behaviour():
    torch.manual_seed(0)
    attention = BehaviourAttention(8, 2, scaled=True, after_turn=True).double()
    behaviours = normal(1, 8).expand(6, 8)
    assert (products(attention, behaviours, 0) - products(attention, behaviours, 7)).abs().max() > 1e-2


def test_behaviours_change_products_and_without_factors_do_not():
    torch.manual_seed(0)
    attention = BehaviourAttention(8, 2, scaled=True, after_turn=False).double()
    assert (products(attention, normal(6, 8), 0) != products(attention, normal(6, 8), 0)).all()
    plain = BehaviourAttention(8, 2, scaled=False, after_turn=False).double()
    torch.testing.assert_close(
        products(plain, normal(6, 8), 0), products(attention, torch.zeros(6, 8).double(), 0), rtol=0, atol=0
    )


@pytest.mark.parametrize("reads", ["rotary", "added", "none"])
def test_padding_and_the_rest_of_a_batch_change_nothing(reads):
    torch.manual_seed(0)
    encoder = BehaviourEncoder(3, 8, 2, 2, 0.0, reads, False).double()
    x, behaviours = normal(2, 5, 8), torch.tensor([[1, 2, 3, 0, 0], [4, 1, 2, 2, 3]])
    whole = encoder(x, behaviours, behaviours > 0)[0, :3]
    alone = encoder(x[:1, :3], behaviours[:1, :3], behaviours[:1, :3] > 0)[0]
    torch.testing.assert_close(whole, alone, rtol=0, atol=1e-12)
    other = encoder(x, torch.tensor([[1, 3, 3, 0, 0], [4, 1, 2, 2, 3]]), behaviours > 0)
    assert bool((other[0, 0] != whole[0]).any()) == (reads != "none")


def test_every_place_reads_every_other():
    """The encoder sees both ways: older entries read newer ones and the reverse."""
    torch.manual_seed(0)
    encoder, x = BehaviourEncoder(2, 8, 2, 1, 0.0, "rotary", False).double(), normal(1, 4, 8)
    behaviours = torch.ones(1, 4, dtype=torch.int64)
    before = encoder(x, behaviours, behaviours > 0)
    for place in range(4):
        moved = x.clone()
        moved[0, place] += normal(8)
        assert (encoder(moved, behaviours, behaviours > 0) != before).any(dim=2).all()


def test_a_block_normalises_what_it_returns():
    torch.manual_seed(0)
    block, x = BehaviourBlock(8, 2, 0.0, True, False).double(), normal(2, 3, 8)
    out = block(x, normal(2, 3, 8), turns(torch.arange(3), 4, x), torch.ones(2, 3, dtype=torch.bool))
    torch.testing.assert_close(out.mean(dim=2), torch.zeros(2, 3).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(out.var(dim=2, unbiased=False), torch.ones(2, 3).double(), rtol=0, atol=1e-3)
