"""The in-place LoRA forward and the temporary merge; when each of them steps aside."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.language.prefix_models import family, with_lora

from taiji.language.prefix_lora import fuse_adapters, merged_adapters

IDS = torch.randint(0, 97, (2, 11), generator=torch.Generator().manual_seed(0))


def results(model):
    """Logits and the gradients of all trainable parameters."""
    logits = model(IDS).logits
    wanted = [p for p in model.parameters() if p.requires_grad]
    return [logits, *torch.autograd.grad(logits.square().mean(), wanted, allow_unused=True)]


@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_fused_is_pefts_forward(name):
    model = with_lora(family(name))
    fused = copy.deepcopy(model)
    assert fuse_adapters(fused) == 21 and fuse_adapters(fused) == 21
    for ours, theirs in zip(results(fused), results(model)):
        assert torch.allclose(ours, theirs, atol=1e-6)
    assert fused.state_dict().keys() == model.state_dict().keys()
    with model.disable_adapter(), fused.disable_adapter(), torch.no_grad():
        assert torch.equal(model(IDS).logits, fused(IDS).logits)


def test_fused_under_autocast_and_with_fp32_adapters_on_a_bfloat16_model():
    model = with_lora(family("llama"))
    fused = copy.deepcopy(model)
    fuse_adapters(fused)
    truth = results_without_gradient(model)
    with torch.autocast("cpu", torch.bfloat16):
        theirs, ours = results_without_gradient(model), results_without_gradient(fused)
    assert 0 < (ours - truth).norm() < 1.2 * (theirs - truth).norm()
    half = with_lora(family("llama").bfloat16())
    assert next(p for n, p in half.named_parameters() if "lora_A" in n).dtype == torch.float32
    fuse_adapters(half)
    gradients = results(half)[1:]
    assert all(g.dtype == torch.float32 for g in gradients if g is not None)


def results_without_gradient(model):
    with torch.no_grad():
        return model(IDS).logits.float()


def test_dropout_two_adapters_and_trained_weights_go_pefts_way():
    from peft import LoraConfig

    model = with_lora(family("llama"), dropout=0.5).train()
    fuse_adapters(model)
    torch.manual_seed(0)
    one = model(IDS).logits
    assert not torch.equal(one, model(IDS).logits), "dropout is at work"
    model = with_lora(family("llama"))
    model.add_adapter("second", LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    plain = copy.deepcopy(model)
    fuse_adapters(model)
    for m in (model, plain):
        m.base_model.set_adapter(["default", "second"])
    assert torch.allclose(model(IDS).logits, plain(IDS).logits, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_merged_weights_are_put_back_to_the_bit(dtype):
    model = with_lora(family("llama").to(dtype))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with torch.no_grad():
        expected = model(IDS).logits.float()
        with pytest.raises(RuntimeError, match="stop"), merged_adapters(model):
            assert torch.allclose(model(IDS).logits.float(), expected, atol=1e-4 if dtype == torch.float32 else 0.5)
            raise RuntimeError("stop")
        assert torch.equal(model(IDS).logits.float(), expected)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_head_tied_to_the_embedding_is_not_merged():
    from peft import LoraConfig, get_peft_model

    adapter = LoraConfig(r=4, target_modules=["lm_head", "q_proj"], init_lora_weights=False)
    model = get_peft_model(family("llama", tie_word_embeddings=True), adapter).eval()
    ids = torch.arange(1, 9)[None]
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        with merged_adapters(model):
            assert model.base_model.model.model.layers[0].self_attn.q_proj.merged
            assert torch.allclose(model(input_ids=ids).logits, expected, atol=1e-4)
