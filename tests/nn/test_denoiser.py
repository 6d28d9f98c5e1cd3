"""An untrained block is the identity, and a trained one reads the step and the condition."""

import torch

from taiji.nn.denoiser import Denoiser, ModulatedBlock


def normal(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def test_a_block_begins_as_the_identity():
    torch.manual_seed(0)
    block, x = ModulatedBlock(6, 4).double(), normal(3, 6)
    assert (block(x, normal(3, 4), normal(3, 6)) == x).all()
    torch.nn.init.normal_(block.modulation.weight)
    condition, step = normal(3, 4), normal(3, 6)
    found = block(x, condition, step)
    assert (
        (found != x).all()
        and (block(x, condition + 1, step) != found).any()
        and (block(x, condition, -step) != found).any()
    )


def test_it_leaves_the_identity_in_training():
    torch.manual_seed(0)
    network = Denoiser(3, 2, 8, 2, 5).double()
    network(normal(4, 3), torch.tensor([1, 2, 3, 5]), normal(4, 2)).sum().backward()
    for block in network.blocks:
        assert block.modulation.weight.grad.any()


def test_rows_do_not_read_one_another():
    torch.manual_seed(0)
    network = Denoiser(3, 2, 8, 2, 5).double()
    noisy, step, condition = normal(4, 3), torch.tensor([1, 2, 3, 5]), normal(4, 2)
    whole = network(noisy, step, condition)
    assert whole.shape == (4, 3)
    torch.testing.assert_close(network(noisy[1:2], step[1:2], condition[1:2]), whole[1:2], rtol=0, atol=1e-12)
