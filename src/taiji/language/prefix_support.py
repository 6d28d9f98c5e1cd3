"""Models that the prefix-sharing engine serves; the others fall back to the unshared forward, with a reason.

First the configuration is read (windows, recurrent layers, wrappers that must see every forward call …), then a tiny
packed forward is compared with the unshared one. So an architecture nobody has heard of is either right or rejected.
"""

from __future__ import annotations

import logging
from typing import Any
from weakref import WeakKeyDictionary

import torch

from taiji.core.errors import TaijiError
from taiji.language.prefix_attention import NAME, install
from taiji.language.prefix_forward import bare_model, shared_logprobs

logger = logging.getLogger(__name__)

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}
"""Relative difference of log-probabilities allowed in the trial: above rounding, far below the effect of a wrong mask."""
HALF_TOLERANCE = 0.05
"""The same for bfloat16 and float16 weights."""
_tried: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
_told: set[str] = set()


def supports_sharing(model: Any) -> tuple[bool, str]:
    """Return whether sharing is right for this model, and if not, why not.

    The trial (two forwards of a few tokens) runs once per model; what can change from call to call is looked at anew.
    """
    reason = _unsupported(model)
    if not reason:
        bare = bare_model(model)
        if bare not in _tried:
            _tried[bare] = _trial(model)
        reason = _tried[bare]
    if reason and reason not in _told:
        _told.add(reason)
        logger.warning("Shared prefixes are computed again for each sequence: %s.", reason)
    return not reason, reason


def _unsupported(model: Any) -> str:
    """Return what the structure of the model says against sharing; empty when nothing does."""
    from transformers import PreTrainedModel

    if getattr(model, "is_prompt_learning", False) or any(
        getattr(c, "is_prompt_learning", False) for c in getattr(model, "peft_config", {}).values()
    ):
        return "the adapter is a learned prompt"
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
    other = sorted({t for t in getattr(config, "layer_types", None) or [] if t != "full_attention"})
    if other:
        return f"{kind} has layers of type {', '.join(other)}"
    if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        return f"{kind} attends within a sliding window"
    if getattr(bare, "_is_stateful", False):
        return f"{kind} carries a recurrent state"
    if not getattr(config, "is_causal", True):
        return f"{kind} is not causal"
    rope = getattr(config, "rope_parameters", None)
    if not rope:
        return f"{kind} has no rotary positions"
    if rope.get("rope_type", "default") in ("dynamic", "longrope"):
        return f"the rotary positions of {kind} depend on the length of the batch"
    if not getattr(bare, "_supports_attention_backend", False) or config._attn_implementation not in ("sdpa", NAME):
        return f"{kind} runs its attention by {config._attn_implementation} (load it with attn_implementation='sdpa')"
    if getattr(config, "attention_dropout", 0.0) and bare.training:
        return f"{kind} drops attention weights while training"
    return ""


def _trial(model: Any) -> str:
    """Compare packed and unshared log-probabilities of a few tokens; the reason when they differ or cannot be had."""
    bare = bare_model(model)
    before = bare.config._attn_implementation
    training = [m for m in bare.modules() if m.training]
    vocabulary = bare.get_input_embeddings().weight.shape[0]
    ids = torch.randint(0, vocabulary, (12,), generator=torch.Generator().manual_seed(0)).tolist()
    rows = [ids[:6] + ids[6:9], ids[:6] + ids[9:], ids[:6]]
    for module in training:
        module.training = False
    try:
        with torch.no_grad():
            shared = shared_logprobs(model, rows, [2, 2, 2], min_shared=2)
            for row, found in zip(rows, shared.logprobs):
                logits = bare(input_ids=torch.tensor([row], device=bare.device), use_cache=False).logits[0, :-1].float()
                expected = torch.log_softmax(logits, -1)[torch.arange(1, len(row) - 1), row[2:]]
                worst = float((expected - found).norm() / expected.norm())
                if not worst <= TOLERANCE.get(bare.dtype, HALF_TOLERANCE):
                    return f"{type(bare).__name__} gives other log-probabilities when packed ({worst:.1%} off)"
        return ""
    except (TypeError, ValueError, RuntimeError, AttributeError, KeyError, IndexError, TaijiError) as error:
        bare.config._attn_implementation = before
        first = (str(error).splitlines() or [type(error).__name__])[0]
        return f"{type(bare).__name__} cannot be run packed ({first})"
    finally:
        for module in training:
            module.training = True
        if before == NAME:
            install(bare)
