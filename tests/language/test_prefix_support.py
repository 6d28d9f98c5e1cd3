"""What is served, what is refused and why."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.language.prefix_models import FAMILIES, family, with_lora

from taiji.language import prefix_attention, prefix_support
from taiji.language.prefix_support import supports_sharing


@pytest.mark.parametrize("name", FAMILIES)
def test_served(name):
    model = family(name).train()
    assert supports_sharing(model) == (True, "")
    assert all(m.training for m in model.modules()), "left as it was"
    assert supports_sharing(with_lora(model)) == (True, "")


@pytest.mark.parametrize(
    "name, changes, reason",
    [
        ("mistral", {"sliding_window": 16}, "sliding window"),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1}, "sliding_attention"),
        ("gemma3", {"sliding_window": 16}, "sliding_attention"),
        ("gpt2", {}, "no rotary positions"),
        ("llama", {"attn_implementation": "eager"}, "eager"),
        (
            "llama",
            {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}},
            "length of the batch",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refused(name, changes, reason):
    model = family(name, **changes)
    before = model.config._attn_implementation
    served, why = supports_sharing(model)
    assert not served and reason in why
    assert model.config._attn_implementation == before


def test_mistral_without_a_window_is_served():
    assert supports_sharing(family("mistral", sliding_window=None))[0]


def test_dropped_attention_weights_only_matter_while_training():
    model = family("llama", attention_dropout=0.1)
    assert supports_sharing(model)[0]
    assert "drops" in supports_sharing(model.train())[1]


def test_wrappers_and_learned_prompts():
    from peft import PromptTuningConfig, get_peft_model

    wrapped = torch.nn.Sequential(family("llama"))
    assert "data-parallel" in supports_sharing(wrapped)[1]
    assert (
        "learned prompt"
        in supports_sharing(
            get_peft_model(family("llama"), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))
        )[1]
    )


def test_a_model_that_differs_when_packed_is_refused_by_the_trial(monkeypatch, caplog):
    model = family("llama")
    monkeypatch.setattr(prefix_support, "_told", set())
    rotary = model.model.rotary_emb.forward
    model.model.rotary_emb.forward = lambda x, position_ids: rotary(x, torch.arange(position_ids.shape[1])[None] ** 2)
    served, why = supports_sharing(model)
    assert not served and "different log-probabilities" in why
    assert supports_sharing(model) == (False, why) and caplog.text.count(why) == 1


def test_an_adapter_that_tokens_activate_is_refused():
    from peft import LoraConfig, get_peft_model

    adapter = LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM", alora_invocation_tokens=[5])
    served, why = supports_sharing(get_peft_model(family("llama"), adapter))
    assert not served and "aLoRA" in why


def test_adapters_that_do_nothing_yet_are_tried_with_values(monkeypatch):
    """LoRA starts at B = 0: an adapter whose effect depends on the row's place must show in the trial, and on a model
    tried before."""
    from peft import LoraConfig, get_peft_model
    from peft.tuners.lora.layer import Linear

    model = family("llama")
    assert supports_sharing(model)[0]
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"]))
    plain = Linear.forward

    def by_place(self, x, *arguments, **keywords):
        base, here = self.base_layer(x), plain(self, x, *arguments, **keywords)
        return base + (here - base) * torch.arange(x.shape[1])[None, :, None]

    monkeypatch.setattr(Linear, "forward", by_place)
    served, why = supports_sharing(adapted)
    assert not served and "different log-probabilities" in why


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["Nemotron", "Doge", "DiffLlama"])
def test_models_whose_attention_does_not_follow_the_tree_are_refused(name, dtype):
    import transformers

    config = getattr(transformers, f"{name}Config")(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
        initializer_range=0.2,
    )
    assert not supports_sharing(getattr(transformers, f"{name}ForCausalLM")(config).eval().to(dtype))[0]


@pytest.mark.parametrize("blocks", [True, False], ids=["same rounding", "other rounding"])
def test_the_trial_of_a_large_half_precision_model_measures_against_another_context(blocks, monkeypatch):
    monkeypatch.setattr(prefix_support, "COPIED", 0)
    if not blocks:  # another kernel rounds otherwise: by a unit of the last place of bf16 here
        along = prefix_attention.tree_attention
        monkeypatch.setattr(prefix_attention, "tree_attention", lambda *a, **k: along(*a, **k) * (1 + 2**-8))
    model = family("llama").to(torch.bfloat16)
    assert supports_sharing(model) == (True, "")
    broken = family("llama").to(torch.bfloat16)
    rotary = broken.model.rotary_emb.forward
    broken.model.rotary_emb.forward = lambda x, position_ids: rotary(x, torch.arange(position_ids.shape[1])[None])
    assert "different log-probabilities" in supports_sharing(broken)[1]


def test_a_model_without_numbers_is_refused():
    model = family("llama")
    model.lm_head.weight.data[:] = torch.nan
    assert "different log-probabilities" in supports_sharing(model)[1]


@pytest.mark.slow
def test_every_architecture_is_right_or_refused_and_the_page_says_which():
    from tools.alignment_models import page, rows

    found = list(rows())
    assert [row for row in found if row.served and not row.right] == []
    assert not [row for row in found if "CRASH" in row.reason]
    written = (Path(__file__).parents[2] / "docs" / "alignment-models.md").read_text()

    def verdicts(text: str) -> list[list[str]]:
        return [line.split("|")[1:4] for line in text.splitlines() if line.startswith("|")]

    assert verdicts(written) == verdicts(page(found)), "python -m tools.alignment_models > docs/alignment-models.md"
