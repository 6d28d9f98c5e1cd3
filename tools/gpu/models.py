"""Language models with random weights, in shapes that people train, made on the device."""

from __future__ import annotations

import random
from typing import Any

import torch
from benchmarks.measuring import Sizes

from taiji.language.tiny import tiny_tokenizer

LETTERS = "QJXZV"
"""Letters that are not in the tokenizer's corpus, so that each is one token."""
SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {"kind": "Qwen3", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 1024, "tie_word_embeddings": True},
    "small": {"kind": "Llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152, "tie_word_embeddings": True},
    "Qwen3 1.7B": {"kind": "Qwen3", "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "tie_word_embeddings": True},
    "Llama 8B": {"kind": "Llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": False},
}  # fmt: skip
"""Configurations by name; `small` is that of SmolLM2-135M."""


def made(name: str, device: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """Return a model of a shape, and a tokenizer with fewer tokens than the model's vocabulary."""
    import transformers

    shape = dict(SHAPES[name])
    kind = shape.pop("kind")
    tokenizer = tiny_tokenizer()
    config = getattr(transformers, f"{kind}Config")(
        max_position_embeddings=16384,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **shape,
    )
    torch.manual_seed(0)
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = getattr(transformers, f"{kind}ForCausalLM")(config)
    finally:
        torch.set_default_dtype(default)
    return model, tokenizer


def prompt_of(tokenizer: Any, length: int, seed: int = 0) -> str:
    """Return a text of exactly ``length`` tokens."""
    text = "".join(random.Random(seed).choices(LETTERS, k=length))
    if len(tokenizer(text).input_ids) != length:
        raise AssertionError("a letter is not one token")
    return text


def update_flops(model: Any, prompt: int, group: int, new: int, shared: bool) -> float:
    """Return the number of operations of a forward and a backward pass; with LoRA, both have equally many. The prompt
    is read once if it is shared, otherwise in every row."""
    sizes, rows = Sizes.of(model), group * new
    tokens = rows + prompt * (1 if shared else group)
    pairs = (1 if shared else group) * prompt * prompt / 2 + rows * (prompt + new / 2)
    return 2 * (2 * sizes.linear * tokens + 2 * sizes.head * rows + sizes.attention * pairs)


def rollout_bytes(model: Any, new: int) -> float:
    """Return the bytes of weights that a rollout reads: the weights of the linear layers and the head, once per token."""
    sizes = Sizes.of(model)
    return float(new * (sizes.linear + sizes.head) * model.dtype.itemsize)
