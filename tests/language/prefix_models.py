"""Random tiny models of several families, and the unshared way to compute what the engine computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

FAMILIES = ("llama", "qwen2", "qwen3", "gemma")
VOCABULARY = 97


def family(name: str, **changes: Any) -> Any:
    """A three-layer model with grouped queries (one with biased projections, one with query norms, one with wide
    heads)."""
    import transformers

    prefix = {
        "llama": "Llama",
        "qwen2": "Qwen2",
        "qwen3": "Qwen3",
        "gemma": "Gemma",
        "mistral": "Mistral",
        "gemma2": "Gemma2",
        "gemma3": "Gemma3Text",
        "gpt2": "GPT2",
    }[name]
    model = prefix.removesuffix("Text")
    sizes: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.2,
        "eos_token_id": None,
        "bos_token_id": None,
        "pad_token_id": 0,
    }
    if name in ("qwen3", "gemma", "gemma3"):
        sizes["head_dim"] = 16
    if name == "gpt2":
        sizes = {
            "vocab_size": VOCABULARY,
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 4,
            "eos_token_id": None,
            "bos_token_id": None,
        }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        kind = "GPT2LMHeadModel" if name == "gpt2" else f"{model}ForCausalLM"
        return getattr(transformers, kind)(getattr(transformers, f"{prefix}Config")(**{**sizes, **changes})).eval()


def with_lora(model: Any, dropout: float = 0.0) -> Any:
    """LoRA on all linear layers, both factors random."""
    from peft import LoraConfig, get_peft_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return get_peft_model(
            model,
            LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=False, lora_dropout=dropout),
        )


def rollouts(
    seed: int = 0, prompts: tuple[int, ...] = (40, 47), lengths: tuple[int, ...] = (5, 9, 1, 12)
) -> tuple[list[list[int]], list[int]]:
    """Sequences and their first scored tokens: each prompt with completions of the given lengths."""
    rng = np.random.default_rng(seed)
    rows: list[list[int]] = []
    starts: list[int] = []
    for size in prompts:
        prompt = rng.integers(0, VOCABULARY, size).tolist()
        for length in lengths:
            rows.append(prompt + rng.integers(0, VOCABULARY, length).tolist())
            starts.append(size)
    return rows, starts


def unshared(
    model: Any, rows: list[list[int]], starts: list[int], temperature: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities and entropies of the scored tokens, each sequence by itself."""
    found, spread = [], []
    for row, start in zip(rows, starts):
        logits = model(input_ids=torch.tensor([row])).logits[0, start - 1 : -1].float() / temperature
        logp = torch.log_softmax(logits, -1)
        found.append(logp.gather(1, torch.tensor(row[start:])[:, None])[:, 0])
        spread.append(-(logp.exp() * logp).sum(-1))
    return torch.cat(found), torch.cat(spread)
