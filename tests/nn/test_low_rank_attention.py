import math

import pytest
import torch

from taiji.nn.low_rank_attention import (
    LowRankAttention,
    first_directions,
    interests,
    low_rank_attention,
    principal_directions,
)

B, M, N, D, R = 2, 4, 60, 24, 5


def of_rank(rank, count=N, seed=0):
    torch.manual_seed(seed)
    history = torch.randn(B, count, rank).double() @ torch.randn(B, rank, D).double()
    return torch.randn(B, M, D).double(), history, torch.ones(B, count, dtype=torch.bool)


def test_where_the_start_spans_everything_the_decomposition_is_exact():
    torch.manual_seed(2)
    history = torch.randn(B, N, 6).double()
    found = principal_directions(history, first_directions(6, 3), 3)
    assert first_directions(6, 3).shape == (6, 6)
    exact = torch.linalg.svd(history)[2][:, :3]
    torch.testing.assert_close((found.transpose(1, 2) * exact).sum(dim=2).abs(), torch.ones(B, 3).double())


def directions_of(history, rank=R):
    return principal_directions(history, first_directions(D, rank), rank)


def test_directions_are_those_of_the_exact_decomposition():
    _, history, _ = of_rank(R)
    found = directions_of(history)
    _, values, exact = torch.linalg.svd(history)
    torch.testing.assert_close(found.transpose(1, 2) @ found, torch.eye(R).double().expand(B, R, R), rtol=0, atol=1e-12)
    cosines = (found.transpose(1, 2) * exact[:, :R]).sum(dim=2).abs()
    torch.testing.assert_close(cosines, torch.ones(B, R).double(), rtol=0, atol=1e-9)
    torch.testing.assert_close((history @ found).norm(dim=1), values[:, :R], rtol=1e-10, atol=0)


def test_the_factored_softmax_is_the_full_one_on_a_history_of_that_rank():
    queries, history, mask = of_rank(R)
    full = low_rank_attention(queries, history, mask, "full_softmax")
    factored = low_rank_attention(queries, history, mask, "factored_softmax", directions_of(history))
    torch.testing.assert_close(factored, full, rtol=1e-10, atol=1e-11)
    expected = torch.softmax(queries[0] @ history[0].T / math.sqrt(D), dim=1) @ history[0]
    torch.testing.assert_close(full[0], expected, rtol=1e-12, atol=1e-12)


def test_logits_of_the_factored_softmax_are_off_by_at_most_the_next_singular_value():
    torch.manual_seed(1)
    queries, history = torch.randn(B, M, D).double(), torch.randn(B, N, D).double()
    found = directions_of(history)
    exact = queries @ history.transpose(1, 2) / math.sqrt(D)
    low = (queries @ found) @ (history @ found).transpose(1, 2) / math.sqrt(D)
    beyond = torch.linalg.matrix_norm(history - history @ found @ found.transpose(1, 2), ord=2)
    bound = queries.norm(dim=2, keepdim=True) * beyond.view(B, 1, 1) / math.sqrt(D)
    assert ((exact - low).abs() <= bound + 1e-12).all()
    following = torch.linalg.svdvals(history)[:, R]
    assert (beyond <= 1.15 * following).all()  # a few rounds of the randomised method are nearly the best there is


def test_the_linear_form_is_exact():
    queries, history, _ = of_rank(R)
    found = directions_of(history)
    scaled = found.transpose(1, 2) @ history.transpose(1, 2) @ history  # Σ² Vᵀ
    torch.testing.assert_close((queries @ found) @ scaled, queries @ history.transpose(1, 2) @ history)


def test_interests_are_another_function_than_the_full_softmax():
    queries, history, mask = of_rank(R)
    full = low_rank_attention(queries, history, mask, "full_softmax")
    compact = low_rank_attention(queries, history, mask, "interest_softmax", directions_of(history))
    assert torch.cosine_similarity(full.flatten(), compact.flatten(), dim=0) < 0.95


def test_the_order_of_the_history_and_its_padding_do_not_matter_to_interests():
    queries, history, mask = of_rank(R)
    attention = LowRankAttention(D, R, "interest_softmax").double()
    expected = attention(queries, history, mask)
    shuffled = history[:, torch.randperm(N)]
    torch.testing.assert_close(attention(queries, shuffled, mask), expected, rtol=1e-8, atol=1e-9)
    padded = torch.cat([torch.zeros(B, 30, D).double(), history], dim=1)
    longer = torch.cat([torch.zeros(B, 30, dtype=torch.bool), mask], dim=1)
    torch.testing.assert_close(attention(queries, padded, longer), expected, rtol=1e-8, atol=1e-9)


def test_the_sign_of_a_singular_vector_does_not_matter():
    _, history, mask = of_rank(R)
    found = directions_of(history)
    flipped = found * torch.tensor([1.0, -1, 1, -1, -1]).double()
    torch.testing.assert_close(interests(history, mask, flipped), interests(history, mask, found), rtol=0, atol=1e-12)


def test_repeating_a_history_does_not_change_its_interests():
    _, history, mask = of_rank(R)
    found = directions_of(history)
    twice = interests(history.repeat(1, 2, 1), mask.repeat(1, 2), found)
    torch.testing.assert_close(twice, interests(history, mask, found), rtol=1e-12, atol=1e-12)


def test_gradients_are_finite_where_singular_values_are_equal():
    history = torch.eye(D).double().repeat(1, 3, 1).requires_grad_()
    mask = torch.ones(1, 3 * D, dtype=torch.bool)
    attention = LowRankAttention(D, R, "interest_softmax").double()
    attention(torch.randn(1, M, D).double(), history, mask).square().sum().backward()
    assert history.grad is not None and torch.isfinite(history.grad).all() and history.grad.abs().sum() > 0


@pytest.mark.parametrize("operator", ["full_softmax", "factored_softmax", "interest_softmax"])
def test_an_empty_history_says_nothing_and_a_short_one_something(operator):
    attention = LowRankAttention(D, R, operator).double()
    history = torch.zeros(2, 6, D).double()
    history[1, 0] = 1.0
    mask = torch.zeros(2, 6, dtype=torch.bool)
    mask[1, 0] = True
    found = attention(torch.ones(2, M, D).double(), history, mask)
    assert torch.isfinite(found).all() and found[0].abs().max() < 1e-10 and found[1].abs().max() > 0.1
