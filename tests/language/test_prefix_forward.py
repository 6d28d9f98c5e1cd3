"""The packed forward against every sequence by itself: log-probabilities, entropies, gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.language.prefix_models import FAMILIES, family, rollouts, unshared, with_lora

from taiji.core.errors import TaijiError
from taiji.language.prefix_forward import shared_batches, shared_logprobs
from taiji.language.prefix_lora import fuse_adapters
from taiji.language.prefix_tree import PackedTree


def trainable(model):
    return [p for p in model.parameters() if p.requires_grad]


def relative(ours, theirs):
    """Relative error of the whole gradient."""
    one, two = (torch.cat([g.flatten() for g in gradients]) for gradients in (ours, theirs))
    return float((one - two).norm() / two.norm())


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("lora", ["full", "lora", "fused"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_equal_to_unshared(name, lora, checkpointing):
    model = family(name).train()
    rows, starts = rollouts()
    if lora != "full":
        model = with_lora(model).train()
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    expected, spread = unshared(model, rows, starts, 0.7)
    back = torch.randn(len(expected), generator=torch.Generator().manual_seed(0))
    exact = torch.autograd.grad((expected * back).sum(), trainable(model))
    if lora == "fused":
        assert fuse_adapters(model) == 21
    result = shared_logprobs(model, rows, starts, temperature=0.7)
    assert [len(x) for x in result.logprobs] == [len(r) - s for r, s in zip(rows, starts)]
    found = torch.cat(result.logprobs)
    assert (found - expected).abs().max() < 1e-5
    assert (torch.cat(result.entropies) - spread).abs().max() < 1e-5
    assert relative(torch.autograd.grad((found * back).sum(), trainable(model)), exact) < 1e-4


def test_entropy_gradient():
    model = with_lora(family("llama"))
    rows, starts = rollouts(prompts=(30,))
    exact = torch.autograd.grad(unshared(model, rows, starts)[1].sum(), trainable(model))
    result = shared_logprobs(model, rows, starts, entropy_gradient=True)
    assert relative(torch.autograd.grad(torch.cat(result.entropies).sum(), trainable(model)), exact) < 1e-4


def test_several_rewards_pull_back_through_one_forward():
    model = with_lora(family("llama"))
    rows, starts = rollouts(prompts=(30,))
    found = torch.cat(shared_logprobs(model, rows, starts).logprobs)
    weights = torch.randn(3, len(found), generator=torch.Generator().manual_seed(0))
    single = [torch.autograd.grad((found * w).sum(), trainable(model), retain_graph=True) for w in weights]
    whole = torch.autograd.grad((found * weights.sum(0)).sum(), trainable(model))
    assert relative([sum(parts) for parts in zip(*single)], whole) < 1e-5


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.lists(st.integers(0, 2), min_size=2, max_size=20)), min_size=1, max_size=6
    ),
    st.integers(1, 20),
)
def test_any_tree(rows, least):
    model = family("llama")
    base = torch.randint(0, 3, (30,), generator=torch.Generator().manual_seed(0)).tolist()
    rows = [base[:n] + tail for n, tail in rows]
    starts = [1 + len(row) // 3 for row in rows]
    with torch.no_grad():
        found = torch.cat(shared_logprobs(model, rows, starts, min_shared=least).logprobs)
        assert (found - unshared(model, rows, starts)[0]).abs().max() < 1e-5


def test_bfloat16_is_as_close_to_float32_as_unshared_bfloat16():
    rows, starts = rollouts(prompts=(60,), lengths=(30, 20, 25))
    with torch.no_grad():
        truth = unshared(family("llama"), rows, starts)[0]
        model = family("llama").bfloat16()
        theirs = (unshared(model, rows, starts)[0] - truth).abs().mean()
        ours = (torch.cat(shared_logprobs(model, rows, starts).logprobs) - truth).abs().mean()
    assert ours < 1.3 * theirs


def test_the_model_is_unchanged_for_other_calls():
    model, fresh = family("llama"), family("llama")
    rows, starts = rollouts()
    shared_logprobs(model, rows, starts)
    ids, mask = torch.tensor([[0, 0, 5, 6, 7], [1, 2, 3, 4, 5]]), torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    with torch.no_grad():
        assert torch.equal(model(ids, attention_mask=mask).logits, fresh(ids, attention_mask=mask).logits)
    assert torch.equal(
        model.generate(ids, attention_mask=mask, max_new_tokens=5, do_sample=False),
        fresh.generate(ids, attention_mask=mask, max_new_tokens=5, do_sample=False),
    )
    assert "prefix" not in model.config.to_json_string()


def test_nothing_scored_and_bad_starts():
    model = family("llama")
    assert [len(x) for x in shared_logprobs(model, [[1, 2, 3], [1, 2]], [3, 1]).logprobs] == [0, 1]
    for starts in ([0], [4], [1, 1]):
        with pytest.raises(TaijiError, match="first scored token"):
            shared_logprobs(model, [[1, 2, 3]], starts)


def test_packs_keep_to_their_room():
    rows, _ = rollouts(prompts=(40, 47, 20), lengths=(5, 9, 2, 12))
    packs = shared_batches(rows, 80)
    assert sorted(i for pack in packs for i in pack) == list(range(len(rows)))
    assert len(packs) >= 3 and all(len(PackedTree([rows[i] for i in pack])) <= 80 + 16 * len(pack) for pack in packs)
    assert shared_batches(rows, 10_000) == [list(range(len(rows)))]
