"""What is served, what is refused and why."""

from __future__ import annotations

import pytest
import torch
from tests.language.prefix_models import FAMILIES, family, with_lora

from taiji.language import prefix_support
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
    assert not served and "other log-probabilities" in why
    assert supports_sharing(model) == (False, why) and caplog.text.count(why) == 1
