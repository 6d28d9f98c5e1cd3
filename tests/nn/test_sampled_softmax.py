"""The sampled softmax is the full one when it sees everything, and right on average when it does not."""

import numpy as np
import pytest
import torch

from taiji.nn.sampled_softmax import sampled_softmax_loss

ITEMS, WIDTH, ROWS = 12, 5, 7


@pytest.fixture
def parts():
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(ITEMS, WIDTH, generator=generator, dtype=torch.float64)
    states = torch.randn(ROWS, WIDTH, generator=generator, dtype=torch.float64)
    return states, torch.randint(ITEMS, (ROWS,), generator=generator), table


def test_every_item_once_is_the_full_softmax(parts):
    states, targets, table = (part.requires_grad_(part.is_floating_point()) for part in parts)
    everything = torch.arange(ITEMS)
    found = sampled_softmax_loss(states, targets, table, everything, torch.full((ITEMS,), -np.log(ITEMS)))
    expected = torch.nn.functional.cross_entropy(states @ table.T, targets)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    for own, right in zip(*(torch.autograd.grad(loss, (states, table)) for loss in (found, expected))):
        torch.testing.assert_close(own, right, rtol=0, atol=1e-12)


def test_the_partition_function_is_unbiased_under_any_proposal(parts):
    """exp of (loss + positive score) is the estimated sum; its mean over draws is the sum over all items."""
    states, targets, table = parts
    chance = torch.arange(1, ITEMS + 1, dtype=torch.float64)
    chance /= chance.sum()
    generator = torch.Generator().manual_seed(1)
    state, target = states[:1], targets[:1]
    own = float(state @ table[target].T)
    sums = []
    for _ in range(4000):
        drawn = torch.multinomial(chance, 30, replacement=True, generator=generator)
        sums.append(float(torch.exp(sampled_softmax_loss(state, target, table, drawn, chance[drawn].log()) + own)))
    expected = float(torch.exp(state @ table.T).sum())
    assert abs(np.mean(sums) - expected) < 4 * np.std(sums) / np.sqrt(len(sums))
