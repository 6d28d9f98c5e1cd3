"""Known values, and gradients that point the right way."""

import math

import torch

from taiji.models.retrieval.code_losses import cluster_loss, skip_loss


def test_skips_are_made_improbable_unless_they_share_the_target_s_code():
    logits = torch.tensor([[0.0, 0.0, math.log(2)], [5.0, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    skipped = torch.tensor([[2, 0, -1], [0, -1, -1]])
    loss = skip_loss(logits, skipped, torch.tensor([0, 0]))
    torch.testing.assert_close(loss, torch.tensor(-math.log(0.5), dtype=torch.float64))  # one skip counts, p = 1/2
    loss.backward()
    assert logits.grad[0, 2] > 0 and (logits.grad[0, :2] < 0).all() and (logits.grad[1] == 0).all()
    assert float(skip_loss(logits.detach(), torch.full((2, 3), -1), torch.tensor([0, 0]))) == 0
    certain = torch.tensor([[100.0, 0.0]], dtype=torch.float64)
    assert math.isfinite(float(skip_loss(certain, torch.tensor([[0]]), torch.tensor([1]))))  # p = 1 is held off


def test_a_thought_near_its_cluster_costs_little():
    table = torch.eye(4, dtype=torch.float64)
    cluster = torch.tensor([0, 0, 1, 1])
    right = torch.tensor([[1.0, 1, 0, 0]], dtype=torch.float64)
    near = cluster_loss(right, table, cluster, torch.tensor([1]), temperature=1.0)
    torch.testing.assert_close(near, torch.tensor(math.log(1 + math.exp(-1)), dtype=torch.float64))
    assert cluster_loss(right, table, cluster, torch.tensor([2]), temperature=1.0) > near
