"""The lean forward: which models it knows, and that its pieces are the model's own mathematics."""

from __future__ import annotations

import pytest
import torch
from tests.language.prefix_models import VOCABULARY, family, with_lora
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from taiji.language import lean_forward
from taiji.language.lean_forward import Product, read_lean, rotated
from taiji.language.prefix_lora import fuse_adapters, merged_adapters
from taiji.language.prefix_support import lean_model, supports_sharing


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "mistral", "gemma", "gemma3"])
def test_families_that_are_read(name):
    assert read_lean(family(name)) is not None
    assert lean_model(family(name)) is not None


@pytest.mark.parametrize("name", ["gemma2", "gpt2"])
def test_other_structures_are_not(name):
    assert read_lean(family(name)) is None, "Gemma 2 caps the scores of its attention"


def test_windows_are_for_generation_only():
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    model = family("gemma3", sliding_window=4, layer_types=kinds)
    assert [(layer.window, layer.kind) for layer in read_lean(model).layers] == list(zip([4, None, 4], kinds))
    assert not supports_sharing(model)[0] and lean_model(model) is not None
    assert {layer.window for layer in read_lean(family("mistral", sliding_window=5)).layers} == {5}
    assert {layer.window for layer in read_lean(family("qwen2")).layers} == {None}


def test_a_model_that_only_looks_alike_fails_the_trial():
    from transformers import GraniteConfig, GraniteForCausalLM

    torch.manual_seed(0)
    sizes = dict.fromkeys(("hidden_size", "intermediate_size"), 32) | {"vocab_size": VOCABULARY}
    heads = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0}
    granite = GraniteForCausalLM(GraniteConfig(**sizes, **heads, residual_multiplier=0.5, embedding_multiplier=3.0))
    assert read_lean(granite) is not None, "the same parts"
    assert supports_sharing(granite.eval())[0] and lean_model(granite) is None, "put together in another way"


def test_what_the_lean_forward_would_pass_by_is_not_read(monkeypatch):
    model = family("llama")
    handle = model.model.layers[1].register_forward_hook(lambda *_: None)
    assert read_lean(model) is None
    handle.remove()
    assert read_lean(model) is not None
    monkeypatch.setattr(lean_forward, "LIMIT", 1000)
    assert read_lean(model) is None, "a copy of the weights would take too much memory"


def test_adapters_must_be_merged_or_off():
    model = with_lora(family("llama"))
    fuse_adapters(model)
    assert read_lean(model) is None
    with merged_adapters(model):
        assert read_lean(model) is not None
    assert read_lean(model) is None
    with model.disable_adapter():
        assert read_lean(model) is not None


def test_products_take_the_type_of_autocast():
    model = family("llama")
    with torch.autocast("cpu", torch.bfloat16):
        lean = read_lean(model)
    assert (lean.dtype, lean.embedding.dtype) == (torch.bfloat16, torch.float32)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_products(packed, dtype, monkeypatch):
    if not packed:
        monkeypatch.setattr(lean_forward, "packing_works", lambda dtype: False)
    generator = torch.Generator().manual_seed(0)
    one, two = torch.nn.Linear(24, 8), torch.nn.Linear(24, 16, bias=False)
    for parameter in (*one.parameters(), *two.parameters()):
        parameter.data = torch.randn(parameter.shape, generator=generator) / 5
    rows, other = torch.randn(7, 24, generator=generator), torch.randn(7, 24, generator=generator)
    expected = torch.cat([one(rows), two(rows)], 1)
    product, limit = Product([one, two], dtype), 1e-5 if dtype == torch.float32 else 0.05
    rows, narrow = rows.to(dtype), other.to(dtype)
    for found, exact in (
        (product(rows), expected),
        (product.activated(rows, "silu"), torch.nn.functional.silu(expected)),
        (product.activated(rows, "gelu"), torch.nn.functional.gelu(expected, approximate="tanh")),
        (product.times(rows, narrow), expected * other),
        (product.onto(rows, narrow), expected + other),
        (product.onto(rows, other), expected + other),
    ):
        assert (found.float() - exact).abs().max() < limit
    assert product.onto(rows, other).dtype == torch.float32, "the residual keeps its type"


def test_rotation_is_transformers():
    model, generator = family("llama"), torch.Generator().manual_seed(0)
    query, key = torch.randn(1, 4, 9, 8, generator=generator), torch.randn(1, 2, 9, 8, generator=generator)
    positions = torch.arange(3, 12)
    expected = apply_rotary_pos_emb(query, key, *model.model.rotary_emb(query, positions[None]))
    cos, sin = read_lean(model).angles(positions)[None]
    for states, exact in zip((query, key), expected):
        assert torch.allclose(rotated(states[0].transpose(0, 1), cos, sin).transpose(0, 1), exact[0], atol=1e-6)
