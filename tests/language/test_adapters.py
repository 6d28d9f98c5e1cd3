"""Merging adapters keeps what they learnt, however small, and whatever type the weights are held in."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model

from taiji.language.adapters import merge_adapters
from taiji.language.causal_lm import LanguageModel, load_language_model
from taiji.language.tiny import tiny_causal_lm


def adapted(model):
    torch.manual_seed(0)
    wrapped = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=1e-4)
    return wrapped


def test_in_float32_it_is_what_peft_does():
    model, tokenizer = tiny_causal_lm()
    lm = LanguageModel(model, tokenizer, "tiny")
    trained = adapted(tiny_causal_lm()[0])
    mine, theirs = merge_adapters(lm, trained), trained.merge_and_unload()
    for (name, a), (_, b) in zip(mine.named_parameters(), theirs.named_parameters(), strict=True):
        torch.testing.assert_close(a, b, msg=name)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), tiny_causal_lm()[0].parameters())), (
        "lm itself stays as it was"
    )


@pytest.fixture
def folder(tmp_path):
    model, tokenizer = tiny_causal_lm()
    return LanguageModel(model, tokenizer, "tiny").save(tmp_path / "tiny")


def test_a_small_update_of_a_bfloat16_model_survives(folder):
    lm = load_language_model(folder, "bfloat16")
    exact = dict(load_language_model(folder, "float32").model.named_parameters())
    trained = adapted(load_language_model(folder, "bfloat16").model)
    deltas = {
        name: m.get_delta_weight("default").float()
        for name, m in trained.get_base_model().named_modules()
        if hasattr(m, "get_delta_weight")
    }
    merged = merge_adapters(lm, trained)
    for name, delta in deltas.items():
        weight = merged.get_submodule(name).weight
        assert weight.dtype == torch.float32
        torch.testing.assert_close(weight, exact[f"{name}.weight"] + delta, rtol=0, atol=0)
