"""An untrained block is the identity; a behaviour's experts and gate are its own; none has the shared ones alone."""

import pytest
import torch

from taiji.nn.behaviour_denoiser import BehaviourDenoiser, BehaviourExperts, TransferBlock


def normal(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def test_blocks_begin_as_the_identity_and_leave_it_in_training():
    torch.manual_seed(0)
    network, noisy = BehaviourDenoiser(6, 3, 2, 5, 1, 2).double(), normal(4, 6)
    step, behaviour = torch.tensor([1, 2, 4, 5]), torch.tensor([0, 1, 2, 3])
    found = network(noisy, step, normal(4, 6), behaviour)
    assert (found == noisy).all()
    (found**2).sum().backward()
    assert all(isinstance(b, TransferBlock) and b.modulation.weight.grad.any() for b in network.blocks)


def test_a_trained_block_reads_all_it_is_given():
    torch.manual_seed(0)
    network, noisy, agnostic = BehaviourDenoiser(6, 3, 1, 5, 1, 2).double(), normal(1, 6), normal(1, 6)
    torch.nn.init.normal_(network.blocks[0].modulation.weight)
    one, two = torch.tensor([1]), torch.tensor([2])
    found = network(noisy, one, agnostic, one)
    for other in (
        network(noisy, two, agnostic, one),
        network(noisy, one, agnostic + 1, one),
        network(noisy, one, agnostic, two),
    ):
        assert (other != found).any()


def by_hand(experts, x, behaviour):
    """Return the mixture of one row, expert by expert."""
    answers = [x @ weight + bias for weight, bias in zip(experts.shared, experts.shared_bias)]
    logits = x @ experts.gates[behaviour]
    if behaviour:
        answers += [x @ w + b for w, b in zip(experts.own[behaviour - 1], experts.own_bias[behaviour - 1])]
    weights = torch.softmax(logits[: len(answers)], dim=0)
    return sum(weight * answer for weight, answer in zip(weights, answers))


@pytest.mark.parametrize("own", [0, 2], ids=["shared-only", "own"])
def test_experts_of_a_row_are_those_of_its_behaviour(own):
    torch.manual_seed(0)
    experts, x = BehaviourExperts(5, 3, 2, own).double(), normal(4, 5)
    torch.nn.init.normal_(experts.shared_bias)
    torch.nn.init.normal_(experts.own_bias)
    found = experts(x, torch.tensor([0, 3, 1, 3]))
    for row, behaviour in enumerate((0, 3, 1, 3)):
        torch.testing.assert_close(found[row], by_hand(experts, x[row], behaviour), rtol=0, atol=1e-12)


def test_a_behaviour_trains_no_other_behaviours_experts():
    torch.manual_seed(0)
    experts = BehaviourExperts(5, 3, 1, 2).double()
    experts(normal(4, 5), torch.tensor([0, 2, 2, 0])).sum().backward()
    assert experts.own.grad[1].any() and not experts.own.grad[[0, 2]].any() and not experts.gates.grad[[1, 3]].any()
    assert torch.isfinite(experts.gates.grad).all()
