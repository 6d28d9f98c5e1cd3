"""The set network and its loss, by identities."""

import pytest
import torch
from torch.nn import functional

from taiji.nn.intent_network import IntentNetwork, OneHistory, matched, set_loss


@pytest.fixture
def network():
    torch.manual_seed(0)
    return IntentNetwork(6, 8, 2, 2, 5, 3).double().eval()


@pytest.fixture
def history():
    torch.manual_seed(1)
    return functional.normalize(torch.randn(4, 5, 6, dtype=torch.float64), dim=-1)


def test_padding_and_other_rows_change_nothing(network, history):
    there = torch.ones(4, 5, dtype=torch.bool)
    there[1, 3:] = False
    vectors, logarithms = network(history, there)
    assert torch.allclose(vectors.norm(dim=-1), torch.ones(4, 3, dtype=torch.float64))
    assert torch.allclose(logarithms.exp().sum(dim=1), torch.ones(4, dtype=torch.float64))
    history[1, 3:] = 7.0
    alone = network(history[1:2, :3], there[1:2, :3])
    padded = network(history[1:2], there[1:2])
    for found, wanted in zip(padded, alone):
        assert torch.allclose(found, wanted)
    assert torch.allclose(alone[0], vectors[1:2])
    for found, wanted in zip(network(history[1:2, :3]), alone):
        assert torch.allclose(found, wanted), "no mask is a mask of everything"


def test_an_untrained_network_mixes_the_history(network, history):
    one = history[:, :1]
    vectors, _ = network(one, torch.ones(4, 1, dtype=torch.bool))
    assert torch.allclose(vectors, one.expand(4, 3, 6))


@pytest.mark.parametrize("length", [1, 3, 5])
def test_one_history_in_numpy_is_the_network(network, history, length):
    with torch.no_grad():
        for (
            weights
        ) in network.parameters():  # a trained network: scales, shifts and steps that are not the initial ones
            weights.add_(0.3 * torch.randn_like(weights))
    vectors, logarithms = network(history[:1, :length])
    said, weights = OneHistory(network)(history[0, :length].numpy())
    assert torch.allclose(vectors[0], torch.from_numpy(said), atol=1e-12)
    assert torch.allclose(logarithms[0].exp(), torch.from_numpy(weights), atol=1e-12)


def test_matching_by_falling_weight():
    base = torch.eye(3)[None]
    targets = functional.normalize(torch.tensor([[[0.9, 0.1, 0.0], [0.8, 0.0, 0.3], [1.0, 0.0, 0.0]]]), dim=-1)
    weights = torch.tensor([[0.6, 0.4, 0.0]])
    assert matched(base, targets, weights)[0, :2].tolist() == [0, 2], "the second finds its nearest taken"


def test_loss_is_zero_for_the_set_itself_in_any_order_and_positive_else():
    torch.manual_seed(2)
    targets = functional.normalize(torch.randn(5, 4, 6, dtype=torch.float64), dim=-1)
    weights = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64).expand(5, 4)
    order = torch.tensor([2, 0, 3, 1])
    same = set_loss(targets[:, order], weights[:, order].log(), targets, weights)
    assert torch.allclose(same, torch.zeros(5, dtype=torch.float64), atol=1e-12)
    assert (set_loss(targets[:, order], weights.log(), targets, weights) > 0.01).all()
    assert (set_loss(-targets, weights.log(), targets, weights) > 0.05).all()


def test_gradient_check(network, history):
    there = torch.ones(4, 5, dtype=torch.bool)
    targets = functional.normalize(torch.randn(4, 2, 6, dtype=torch.float64), dim=-1)
    weights = torch.tensor([0.7, 0.3], dtype=torch.float64).expand(4, 2)

    def loss(query):
        with torch.no_grad():
            kept = network.query.clone()
        found = torch.func.functional_call(network, {"query": query}, (history, there))
        assert torch.equal(kept, network.query)
        return set_loss(*found, targets, weights).sum()

    assert torch.autograd.gradcheck(loss, network.query.detach().clone().requires_grad_())
