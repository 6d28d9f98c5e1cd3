"""Check whether a model supports prefix sharing. For other models, sharing is off, and the reason is logged.

First the configuration is checked (windows, recurrent layers, wrappers that must see every forward call, …). Then a
tiny packed forward pass and a few decoding steps are compared with the same computation without sharing. An unknown
architecture is thus either computed correctly or rejected. The lean forward pass (`lean_forward`) is checked in the
same way; it also supports windows.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from taiji.core.errors import TaijiError
from taiji.language.lean_decode import LeanDecoder
from taiji.language.lean_forward import LeanModel, read_lean
from taiji.language.prefix_attention import NAME, install
from taiji.language.prefix_decode import SharedDecoder
from taiji.language.prefix_forward import bare_model, shared_logprobs
from taiji.language.prefix_lora import merged_adapters

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Tried:
    """Result of the trial of a model.

    Attributes:
        state: dtype and adapters of the model during the trial.
        reason: reason against sharing; empty if sharing is correct.
        lean: True if the lean forward pass is correct.
    """

    state: object
    reason: str
    lean: bool


TOLERANCE = 1e-4
"""Allowed relative difference of log-probabilities in the trial: above float32 rounding, and far below the effect of a
wrong mask."""
COPIED = 200_000_000
"""Largest number of parameters for which the trial runs on a float32 copy of the model."""
HALF_TOLERANCE = 0.1
"""Allowed difference of log-probabilities for half-precision models that are too large for a copy. It is relative to
the change of the log-probabilities that a different context causes."""
STEPS = 4
"""Number of tokens decoded in the trial."""
WINDOW = "sliding_attention"
ATTENTION_TYPES = {"full_attention", WINDOW}
_tried: WeakKeyDictionary[Any, _Tried] = WeakKeyDictionary()
_told: set[str] = set()


def supports_sharing(model: Any) -> tuple[bool, str]:
    """Return True and an empty text if sharing is correct for this model, otherwise False and the reason against it.

    The trial (a few short forward passes) runs once per model, and again if its dtype or adapters change. Conditions
    that can change between calls are checked at every call.
    """
    reason = _unsupported(model) or _windowed(model) or _tried_once(model).reason
    if reason and reason not in _told:
        _told.add(reason)
        logger.warning("Prefix sharing is off, so each sequence is computed in full: %s.", reason)
    return not reason, reason


def lean_model(model: Any) -> LeanModel | None:
    """Convert a model for the lean forward pass; return None if this is not supported.

    This is supported on a CPU, with adapters merged or disabled, for models that have passed the trial. The result is a
    copy of the current weights, so convert the model again for each generation.
    """
    bare = bare_model(model)
    right = not _unsupported(model) and bare.device.type == "cpu" and _tried_once(model).lean
    return read_lean(bare) if right else None


def _tried_once(model: Any) -> _Tried:
    """Return the result of a model's trial. The trial runs again only if the model's dtype or adapters have changed."""
    bare = bare_model(model)
    state = (bare.dtype, tuple(type(m).__name__ for m in bare.modules() if type(m).__module__.startswith("peft.")))
    if bare not in _tried or _tried[bare].state != state:
        _tried[bare] = _Tried(state, *_trial(bare))
    return _tried[bare]


def _unsupported(model: Any) -> str:
    """Return the reason why the structure of the model rules out both sharing and the lean forward pass; empty if there
    is none."""
    from transformers import PreTrainedModel

    adapters = list(getattr(model, "peft_config", {}).values())
    if getattr(model, "is_prompt_learning", False) or any(getattr(c, "is_prompt_learning", False) for c in adapters):
        return "the adapter is a learned prompt"
    if any(getattr(c, "alora_invocation_tokens", None) for c in adapters):
        return "the adapter is activated by tokens (aLoRA) and must see each sequence separately"
    bare = bare_model(model)
    if not isinstance(bare, PreTrainedModel):
        return f"{type(model).__name__} is not a plain transformers model (a data-parallel wrapper must see every forward call)"
    config = bare.config
    kind = type(bare).__name__
    sharded = any(type(p).__name__ == "DTensor" or hasattr(p, "ds_id") for p in bare.parameters())
    if sharded or any(type(m).__name__ == "FullyShardedDataParallel" for m in bare.modules()):
        return "the weights are sharded over processes"
    if config.get_text_config() is not config or getattr(config, "is_encoder_decoder", False):
        return f"{kind} is not a text-only decoder"
    other = sorted(set(getattr(config, "layer_types", None) or []) - ATTENTION_TYPES)
    if other:
        return f"{kind} has layers of type {', '.join(other)}"
    if getattr(bare, "_is_stateful", False):
        return f"{kind} carries a recurrent state"
    if not getattr(config, "is_causal", True) or getattr(config, "use_bidirectional_attention", False):
        return f"{kind} is not causal"
    rope = getattr(config, "rope_parameters", None)
    if not rope:
        return f"{kind} has no rotary positions"
    kinds = [own for own in rope.values() if isinstance(own, dict)] or [rope]
    if any(own.get("rope_type", "default") in ("dynamic", "longrope") for own in kinds):
        return f"the rotary positions of {kind} depend on the length of the batch"
    if not getattr(bare, "_supports_attention_backend", False):
        return f"{kind} has custom attention code that bypasses transformers' interface"
    if config._attn_implementation not in ("sdpa", NAME):
        return f"{kind} runs its attention with {config._attn_implementation} (load it with attn_implementation='sdpa')"
    if getattr(config, "attention_dropout", 0.0) and bare.training:
        return f"{kind} drops attention weights while training"
    return ""


def _windowed(model: Any) -> str:
    """Return the reason against sharing if layers attend within a window, otherwise an empty text."""
    config = bare_model(model).config
    kind = type(bare_model(model)).__name__
    if WINDOW in (getattr(config, "layer_types", None) or []):
        return f"{kind} has layers of type {WINDOW}"
    if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        return f"{kind} attends within a sliding window"
    return ""


def _trial(bare: Any) -> tuple[str, bool]:
    """Compare log-probabilities and decoding of a few tokens with and without sharing.

    A model of at most :data:`COPIED` parameters is copied in float32. In the copy, parameters that are all zero (such
    as the factors of new adapters) are filled with random values.

    Returns:
        The reason against sharing (empty if the results agree), and True if the lean forward pass also agrees.
    """
    before, windowed = bare.config._attn_implementation, bool(_windowed(bare))
    training = [m for m in bare.modules() if m.training]
    for module in training:
        module.training = False
    subject, copied = bare, sum(p.numel() for p in bare.parameters()) <= COPIED
    try:
        if copied:
            subject = copy.deepcopy(bare).float()
            _fill_zeros(subject)
        with torch.no_grad(), torch.autocast(bare.device.type, enabled=False):
            lean = _lean_difference(subject)
            worst = lean if windowed else _shared_difference(subject)
        limit = TOLERANCE if subject.dtype in (torch.float32, torch.float64) else HALF_TOLERANCE
        if not worst <= limit:
            return f"{type(bare).__name__} gives different log-probabilities when packed (by {worst:.1%})", False
        return "", lean <= limit
    except (TypeError, ValueError, RuntimeError, AttributeError, KeyError, IndexError, TaijiError) as error:
        bare.config._attn_implementation = before
        first = (str(error).splitlines() or [type(error).__name__])[0]
        return f"{type(bare).__name__} cannot be run packed ({first})", False
    finally:
        for module in training:
            module.training = True
        if before == NAME:
            install(bare)


def _fill_zeros(model: Any) -> None:
    """Fill all-zero parameters with random values, because zeros would hide errors in the values that they multiply."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)


class _Sample:
    """Random token ids for the trial, and a model's log-probabilities for them without sharing and without forward-pass
    wrappers."""

    def __init__(self, model: Any) -> None:
        self.model, self.exact = model, model.dtype in (torch.float32, torch.float64)
        vocabulary = model.get_input_embeddings().weight.shape[0]
        self.ids = torch.randint(0, vocabulary, (20,), generator=torch.Generator().manual_seed(0)).tolist()

    def alone(self, row: list[int]) -> torch.Tensor:
        """Return the log-probabilities (L, V) after each token."""
        inputs = torch.tensor([row], device=self.model.device)
        logits = type(self.model).forward(self.model, input_ids=inputs, use_cache=False).logits[0]
        return torch.log_softmax(logits.float(), -1)

    def difference(self, found: torch.Tensor, expected: torch.Tensor, other: torch.Tensor) -> float:
        """Return the relative difference of log-probabilities from the expected ones.

        In float32 it is relative to the log-probabilities. In half precision, rounding would hide a wrong mask, so the
        difference is relative to the change that a different context causes (``other``).
        """
        size = expected.norm() if self.exact else (expected - other).norm()
        return float((expected - found).norm() / size)

    def decoding(self, make: Callable[[list[list[int]], list[int], int], SharedDecoder | LeanDecoder]) -> float:
        """Return the largest difference of a decoder's log-probabilities from those without sharing, over all steps.

        The decoder is opened by ``make``, a function of the prompts, the rows per prompt and the number of steps.
        """
        ids = self.ids
        prompts, tails = [ids[:6], ids[12:16]], [ids[6 : 6 + STEPS], ids[10 : 10 + STEPS], ids[16 : 16 + STEPS]]
        decoder = make(prompts, [2, 1], STEPS)
        full = [self.alone(prompts[int(p)] + tail) for p, tail in zip(decoder.prompt_of, tails)]
        starts = [len(prompts[int(p)]) - 1 for p in decoder.prompt_of]
        elsewhere = [2, 2, 0]  # a row of the other prompt, because rows of one prompt agree on the first token
        found = []
        for step in range(STEPS + 1):
            logprobs = torch.log_softmax(decoder.logits, -1)
            for n, start in enumerate(starts):
                expected, other = full[n][start + step], full[elsewhere[n]][starts[elsewhere[n]] + step]
                found.append(self.difference(logprobs[n], expected, other))
            if step < STEPS:
                decoder.step([tail[step] for tail in tails])
        return float(np.max(found))  # NaN if one of them is NaN


def _shared_difference(model: Any) -> float:
    """Return the largest relative difference of shared scoring and decoding from the log-probabilities without
    sharing."""
    sample = _Sample(model)
    ids = sample.ids
    rows, errors = [ids[:6] + ids[6:9], ids[:6] + ids[9:12], ids[:6]], []
    shared = shared_logprobs(model, rows, [2, 2, 2], min_shared=2)
    for row, found in zip(rows, shared.logprobs):
        place = torch.arange(1, len(row) - 1)
        expected = sample.alone(row)[:-1][place, row[2:]]
        other = sample.alone([*ids[-2:], *row[2:]])[:-1][place, row[2:]]
        errors.append(sample.difference(found, expected, other))
    return float(np.max([*errors, sample.decoding(partial(SharedDecoder, model))]))


def _lean_difference(model: Any) -> float:
    """Return the largest relative difference of lean decoding; infinite if the structure or the device is not
    supported."""
    with merged_adapters(model):
        lean = read_lean(model) if model.device.type == "cpu" else None
        return torch.inf if lean is None else _Sample(model).decoding(partial(LeanDecoder, lean))
