"""The blockwise attention equals the masked one, forward and backward, whatever the tree."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from taiji.language import prefix_attention
from taiji.language.prefix_attention import (
    VARIANTS,
    _compiled_flex,
    _repeats,
    best_backend,
    blocks_work,
    mask_blocks,
    tree_attention,
)
from taiji.language.prefix_tree import PackedTree


def inputs(tree, heads=6, kv=2, size=16, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(1, len(tree), h, size, generator=generator).to(dtype).transpose(1, 2).requires_grad_()
        for h in (heads, kv, kv)
    ]


def trees(seed):
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 3, 60).tolist()
    rows = [
        base[: rng.integers(1, 60)] + rng.integers(0, 3, rng.integers(0, 30)).tolist()
        for _ in range(rng.integers(1, 9))
    ]
    return PackedTree(rows, int(rng.integers(1, 20)))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_blocks_equal_the_mask(seed):
    tree = trees(seed)
    tensors = inputs(tree, seed=seed)
    given_back = torch.randn(1, len(tree), 6, 16, generator=torch.Generator().manual_seed(seed))
    found = {}
    for backend in ("blocks", "masked"):
        out = tree_attention(*tensors, tree, backend=backend)
        found[backend] = [out, *torch.autograd.grad(out, tensors, given_back)]
    for one, two in zip(*found.values()):
        assert torch.allclose(one, two, atol=2e-5)


@pytest.mark.parametrize(
    ("batch", "threads", "repeats"), [(1, 1, 1), (1, 2, 3), (8, 2, 1), (1, 16, 3)], ids=["one", "two", "batch", "many"]
)
def test_key_heads_are_repeated_where_threads_would_wait(monkeypatch, batch, threads, repeats):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert _repeats(batch, 3, 9) == repeats


@pytest.mark.parametrize("repeats", [1, 3])
def test_repeated_key_heads_give_the_same_gradients(monkeypatch, repeats):
    monkeypatch.setattr(prefix_attention, "_repeats", lambda *_: repeats)
    tree = trees(5)
    tensors = inputs(tree, dtype=torch.float64)
    given_back = torch.randn(1, len(tree), 6, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    blocks, masked = (
        torch.autograd.grad(tree_attention(*tensors, tree, backend=backend), tensors, given_back)
        for backend in ("blocks", "masked")
    )
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(blocks, masked))


def test_a_second_backward_pass_over_one_forward():
    tree = trees(3)
    tensors = inputs(tree)
    out = tree_attention(*tensors, tree, backend="blocks")
    first, second = (torch.autograd.grad(out.sum(), tensors, retain_graph=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second))


def test_the_compiled_form_keeps_what_a_second_backward_pass_reads():
    from torch._dynamo import config
    from torch._functorch import config as gradients

    _compiled_flex()
    assert not gradients.donated_buffer  # or a backward pass for the second reward raises
    assert config.recompile_limit >= VARIANTS


@pytest.mark.skipif(not torch.cuda.is_available(), reason="compiled FlexAttention is used on a GPU alone")
def test_two_backward_passes_of_the_compiled_form_are_equal():
    tree = PackedTree([list(range(200)) + [tail] * 40 for tail in (300, 301)])
    query, key, value = (torch.randn(1, h, len(tree), 64, device="cuda", dtype=torch.bfloat16) for h in (4, 2, 2))
    tensors = [t.requires_grad_() for t in (query, key, value)]
    out = tree_attention(*tensors, tree, backend="flex")
    first, second = (torch.autograd.grad(out.sum(), tensors, retain_graph=True) for _ in range(2))
    assert all(torch.allclose(a, b, rtol=1e-2, atol=1e-2) for a, b in zip(first, second))


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_the_flex_mask_is_the_same(recwarn):
    tree = trees(1)
    tensors = [t.detach() for t in inputs(tree)]
    assert torch.allclose(
        tree_attention(*tensors, tree, backend="flex"), tree_attention(*tensors, tree, backend="masked"), atol=1e-5
    )


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_blocks_of_the_mask_are_those_of_flex_attention(seed):
    from torch.nn.attention.flex_attention import create_block_mask

    random = np.random.default_rng(seed)
    start = random.integers(0, 50, random.integers(1, 400)).tolist()
    rows = [
        start[: random.integers(1, len(start) + 1)] + random.integers(0, 50, random.integers(1, 300)).tolist()
        for _ in range(random.integers(1, 6))
    ]
    tree = PackedTree(rows)
    cpu = torch.device("cpu")
    stock = create_block_mask(tree.may_attend(cpu), None, None, len(tree), len(tree), device="cpu")
    for counts, places, kind in zip(
        (stock.kv_num_blocks, stock.full_kv_num_blocks), (stock.kv_indices, stock.full_kv_indices), mask_blocks(tree)
    ):
        for row, own in enumerate(kind):
            assert places[0, 0, row, : counts[0, 0, row]].tolist() == np.flatnonzero(own).tolist()


@pytest.mark.parametrize("products", [False, True], ids=["flash", "products"])
def test_bfloat16_is_as_close_to_the_truth_as_the_masked_kernel(monkeypatch, products):
    monkeypatch.setattr(prefix_attention, "products_pay", lambda: products)
    tree = trees(2)
    tensors = inputs(tree, size=64)
    half = [t.detach().bfloat16().requires_grad_() for t in tensors]
    truth = tree_attention(*[t.float() for t in half], tree, backend="masked")
    back = torch.randn_like(truth)
    exact = torch.autograd.grad(truth, half, back)
    errors = {}
    for backend in ("blocks", "masked"):
        out = tree_attention(*half, tree, backend=backend)
        pairs = zip((out, *torch.autograd.grad(out, half, back.bfloat16())), (truth, *exact))
        errors[backend] = [float((a.detach().float() - b.detach()).norm() / b.detach().norm()) for a, b in pairs]
    assert all(ours < 1.5 * theirs + 1e-3 for ours, theirs in zip(errors["blocks"], errors["masked"]))


def test_the_way_follows_device_and_head():
    q, v = torch.empty(1, 2, 3, 16), torch.empty(1, 2, 3, 8)
    assert best_backend(q, q) == ("blocks" if blocks_work() else "masked")
    assert best_backend(q, v) == "masked", "heads of unequal sizes have no flash kernel on the CPU"
