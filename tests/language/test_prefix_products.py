"""Tests of the backward pass of attention as matrix products."""

import pytest
import torch

from taiji.language import prefix_products
from taiji.language.prefix_products import Factors, blocks, extended

SCALE = 0.3


def case(batch=2, heads=6, groups=3, queries=11, keys=11, size=5, dtype=torch.float64):
    """Random tensors: query, key, value, gradient of the output."""
    generator = torch.Generator().manual_seed(1)
    shapes = [(heads, queries), (heads // groups, keys), (heads // groups, keys), (heads, queries)]
    return [torch.randn(batch, h, n, size, generator=generator, dtype=dtype) for h, n in shapes]


def attention(query, key, value, causal):
    """Output and log-sum-exp (B, Hq, L, 1), by autograd's own operations."""
    groups = query.shape[1] // key.shape[1]
    scores = SCALE * query @ key.repeat_interleave(groups, 1).mT
    if causal:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1), -torch.inf)
    return scores.softmax(-1) @ value.repeat_interleave(groups, 1), scores.logsumexp(-1, keepdim=True)


def expected(query, key, value, grad, causal):
    inputs = [t.detach().requires_grad_() for t in (query, key, value)]
    out, lse = attention(*inputs, causal)
    return out.detach(), lse.detach(), torch.autograd.grad(out, inputs, grad)


@pytest.mark.parametrize("causal", [False, True], ids=["all keys", "causal"])
@pytest.mark.parametrize("most", [(1 << 23, 1024), (24, 4), (1, 1)], ids=["one block", "small blocks", "single keys"])
def test_the_products_give_the_exact_gradients(monkeypatch, causal, most):
    monkeypatch.setattr(prefix_products, "SCORES", most[0])
    monkeypatch.setattr(prefix_products, "KEYS", most[1])
    monkeypatch.setattr(prefix_products, "CAUSAL_KEYS", most[1])
    query, key, value, grad = case(keys=11 if causal else 7)
    out, lse, exact = expected(query, key, value, grad, causal)
    found = Factors.of(grad, query, key, value, out, lse, SCALE).gradients(causal)
    for ours, theirs in zip(found, exact):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


def test_weighted_sums_are_those_of_weighted_gradients():
    query, key, value, grad = case(batch=1)
    weights = torch.randn(4, query.shape[2], dtype=torch.float64)
    out, lse, exact = expected(query, key, value, grad, False)
    back, *found = Factors.of(grad, query, key, value, out, lse, SCALE).gradients(False, weights)
    torch.testing.assert_close(back, exact[0], rtol=1e-11, atol=1e-11)
    for number, row in enumerate(weights):
        _, _, exact = expected(query, key, value, grad * row[:, None], False)
        for ours, theirs in zip(found, exact[1:]):
            torch.testing.assert_close(ours[..., number, :], theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("spread", [0.3, 1.0, 4.0], ids=["flat", "normal", "peaked"])
def test_bfloat16_is_about_as_close_to_the_truth_as_the_flash_kernel(spread):
    tensors = case(1, 4, 2, 200, 300, 64, torch.float32)
    query, key, value, grad = [t.mul(s).bfloat16() for t, s in zip(tensors, (spread, spread, 1, 1))]
    _, _, exact = expected(*(t.double() for t in (query, key, value, grad)), False)
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, scale=SCALE)
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        grad, query, key, value, out, lse, 0.0, False, scale=SCALE
    )
    ours = Factors.of(grad, query, key, value, out, lse.unsqueeze(-1), SCALE).gradients(False)
    errors = [max(float((a.double() - b).norm() / b.norm()) for a, b in zip(found, exact)) for found in (ours, flash)]
    assert errors[0] < 1.5 * errors[1]


def test_a_column_keeps_its_precision_in_two_parts():
    column = torch.tensor([3.14159, -1000.123])
    made = extended(torch.zeros(2, 3, dtype=torch.bfloat16), column)
    assert made.shape == (2, prefix_products.LANES)
    torch.testing.assert_close(made.float().sum(-1), column, rtol=2**-16, atol=0)
    assert extended(torch.zeros(1, 3), None)[0].tolist() == [0, 0, 0, 1, 1] + [0] * 27


@pytest.mark.parametrize(
    ("start", "stop", "most", "found"),
    [(0, 10, 4, [(0, 4), (4, 8), (8, 10)]), (3, 10, 100, [(3, 10)]), (0, 9, 5, [(0, 5), (5, 9)]), (4, 4, 3, [])],
    ids=["three", "one", "two", "none"],
)
def test_blocks_are_equal_and_small_enough(start, stop, most, found):
    assert list(blocks(start, stop, most)) == found
