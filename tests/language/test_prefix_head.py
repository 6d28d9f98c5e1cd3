"""Chunked log-probabilities: equal to plain ones, with the gradient of either path."""

from __future__ import annotations

import pytest
import torch

from taiji.language import prefix_head
from taiji.language.prefix_head import Head, token_logprobs


@pytest.mark.parametrize("cap", [None, 3.0], ids=["uncapped", "capped"])
@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_equal_to_plain_log_softmax(monkeypatch, cap, frozen, bias):
    monkeypatch.setattr(prefix_head, "CHUNK", 16 * 50)  # several chunks of 16 rows
    torch.manual_seed(0)
    module = torch.nn.Linear(12, 50, bias=bias).requires_grad_(not frozen)
    head = Head(module, 0.7, cap)
    hidden = torch.randn(40, 12, requires_grad=True)
    rows, tokens = torch.randint(0, 40, (90,)), torch.randint(0, 50, (90,))
    back, wide = torch.randn(90), torch.randn(40)
    wanted = [hidden] if frozen else [hidden, *module.parameters()]

    logits = 0.7 * module(hidden)
    logits = logits if cap is None else cap * torch.tanh(logits / cap)
    logp = torch.log_softmax(logits / 1.3, -1)
    expected, spread = logp[rows, tokens], -(logp.exp() * logp).sum(-1)
    exact = torch.autograd.grad((expected * back).sum(), wanted, retain_graph=True)
    found, entropies = token_logprobs(hidden, head, rows, tokens, 1.3)
    assert torch.allclose(found, expected, atol=1e-5) and torch.allclose(entropies, spread, atol=1e-5)
    for ours, theirs in zip(torch.autograd.grad((found * back).sum(), wanted), exact):
        assert torch.allclose(ours, theirs, atol=1e-5)
    found, entropies = token_logprobs(hidden, head, rows, tokens, 1.3, entropy_gradient=True)
    exact = torch.autograd.grad((expected * back).sum() + (spread * wide).sum(), wanted)
    for ours, theirs in zip(torch.autograd.grad((found * back).sum() + (entropies * wide).sum(), wanted), exact):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_which_heads_are_frozen():
    plain = torch.nn.Linear(3, 4).requires_grad_(False)
    assert Head(plain).frozen and not Head(torch.nn.Linear(3, 4)).frozen
    plain.forward = lambda x: x  # a patched head (TRL's fp32 cast) must be called
    assert not Head(plain).frozen
