"""Forward pass over sequences with common prefixes, in which each shared prefix is computed only once.

The tokens are packed as a tree (`prefix_tree`). Attention follows the tree (`prefix_attention`); all other layers work
on each token separately and need no change. Log-probabilities and gradients equal those of the forward pass without
sharing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from taiji.core.errors import InputError
from taiji.language.prefix_attention import PACKED_MASK, check_seen, install, installed
from taiji.language.prefix_head import head_of, token_logprobs
from taiji.language.prefix_tree import MIN_SHARED, PackedTree, Packing, common_length
from taiji.nn.devices import on_device


@dataclass(frozen=True)
class SharedLogprobs:
    """Result of `shared_logprobs`: one tensor (scored tokens,), at least in float32, per sequence.

    Attributes:
        logprobs: log-probabilities in nats.
        entropies: entropies, in nats, of the model's distributions at the scored tokens.
    """

    logprobs: list[torch.Tensor]
    entropies: list[torch.Tensor]


def bare_model(model: Any) -> Any:
    """Return the transformers model inside PEFT's wrapper, with its adapters, or an unwrapped model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def packed_hidden(model: Any, tree: Packing, keep: Any = None, decoding: Any = None) -> torch.Tensor:
    """Return the last hidden states (T, H) of the packed tokens.

    Args:
        model: causal LM for which :func:`supports_sharing` is true.
        tree: packing of the T tokens.
        keep: object whose `keep(layer, key, value)` receives the keys and values of every layer.
        decoding: object whose `attend(layer, query, key, value, scale)` replaces the attention along the tree.
    """
    bare = bare_model(model)
    if not installed(bare):
        install(bare)
    device = bare.device
    extra = {"taiji_tree": tree} if decoding is None else {"taiji_decoding": decoding}
    if keep is not None:
        extra["taiji_keep"] = keep
    seen: set[int] = set()
    out = bare.base_model(
        input_ids=on_device(tree.tokens.numpy(), device).unsqueeze(0),
        position_ids=on_device(tree.positions.numpy(), device).unsqueeze(0),
        attention_mask=torch.ones(PACKED_MASK, device=device),
        use_cache=False,
        taiji_seen=seen,
        **extra,
    )
    check_seen(bare, seen)
    return out.last_hidden_state[0]


def shared_logprobs(
    model: Any,
    sequences: Sequence[Sequence[int]],
    starts: Sequence[int],
    *,
    temperature: float = 1.0,
    entropy_gradient: bool = False,
    min_shared: int = MIN_SHARED,
) -> SharedLogprobs:
    """Return the log-probability of every token of `sequence[start:]` given the tokens before it.

    The result is differentiable in the parameters of the model; use `torch.no_grad()` for scoring. Shared prefixes are
    detected in the token ids. They occur in rollouts of one prompt, answers after one rationale, and prompts with a
    common beginning.

    Args:
        model: causal LM for which :func:`supports_sharing` is true, with or without LoRA.
        sequences: token ids without padding.
        starts: index of the first scored token of each sequence, at least 1.
        temperature: temperature by which the logits are divided.
        entropy_gradient: also compute gradients of the entropies.
        min_shared: length, in tokens, of the shortest prefix that gets its own segment.

    Raises:
        TaijiError: a start is outside its sequence.
    """
    tree = PackedTree([s[: max(len(s) - 1, 1)] for s in sequences], min_shared)  # the last token predicts nothing
    at, tokens, sizes = scored_places(tree, sequences, starts)
    states = packed_hidden(model, tree)
    places, rows = np.unique(at, return_inverse=True)
    device = states.device
    index = on_device(rows, device)
    found, entropies = token_logprobs(
        states[on_device(places, device)],
        head_of(bare_model(model)),
        index,
        on_device(tokens, device),
        temperature,
        entropy_gradient,
    )
    return SharedLogprobs(list(found.split(sizes)), list(entropies[index].split(sizes)))


def scored_places(
    tree: PackedTree, sequences: Sequence[Sequence[int]], starts: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Return the packed positions that predict the tokens of `sequence[start:]`, these tokens, and their number per
    sequence.

    Raises:
        TaijiError: a start is outside its sequence.
    """
    if len(sequences) != len(starts) or any(not 1 <= start <= len(s) for s, start in zip(sequences, starts)):
        raise InputError(
            "A sequence has no valid first scored token.",
            expected="one start per sequence with 1 <= start <= its length",
            found=f"starts {list(starts)[:8]}, lengths {[len(s) for s in sequences][:8]}",
        )
    sizes = [len(s) - start for s, start in zip(sequences, starts)]
    places = np.concatenate([path[start - 1 : start - 1 + n] for path, start, n in zip(tree.paths, starts, sizes)])
    tokens = np.concatenate([np.asarray(s, dtype=np.int64)[start:] for s, start in zip(sequences, starts)])
    return places, tokens, sizes


def shared_batches(sequences: Sequence[Sequence[int]], room: int) -> list[list[int]]:
    """Split sequences into packs of at most `room` tokens, where a shared prefix counts once.

    Sequences with a common prefix are placed in the same pack where possible. A sequence longer than `room` is a pack
    of its own.

    Returns:
        one list of sequence indices per pack.
    """
    packs: list[list[int]] = []
    left = -1
    before: np.ndarray = np.empty(0, np.int64)
    for i in sorted(range(len(sequences)), key=lambda i: (list(sequences[i]), i)):
        ids = np.asarray(sequences[i], dtype=np.int64)
        new = len(ids) - common_length(before, ids) if packs else len(ids)
        if new > left:
            packs.append([])
            left, new = room, len(ids)
        packs[-1].append(i)
        left, before = left - new, ids
    return [sorted(pack) for pack in packs]
