"""Trainable copies of a language model, and the merge of trained LoRA adapters into float32 weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taiji.core.optional import needs

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedModel

    from taiji.language.causal_lm import LanguageModel


def trainable(lm: LanguageModel, rank: int) -> tuple[PreTrainedModel, LoraConfig | None]:
    """Return a trainable copy of a model; the original is left unchanged.

    Args:
        lm: the model to copy.
        rank: rank of the LoRA adapters on all linear layers; 0 trains all weights.

    Returns:
        with adapters, a copy in the current dtype and a ``LoraConfig`` of scale 2; otherwise a float32 copy and None.
    """
    import copy

    if not rank:
        return lm.master(), None
    with needs("llm"):
        from peft import LoraConfig

    adapters = LoraConfig(
        r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    return copy.deepcopy(lm.model), adapters


def merge_adapters(lm: LanguageModel, trained: PeftModel) -> PreTrainedModel:
    """Merge trained adapters into the float32 weights of the model they were trained on.

    PEFT's own merge adds in the dtype of the weights; in bfloat16, rounding loses most of a small update.

    Args:
        lm: the base model; left unchanged.
        trained: a PEFT model that wraps a copy of the base model, with LoRA adapters on linear layers.

    Returns:
        a plain model in float32, in evaluation mode.
    """
    import torch

    master = lm.master()
    with torch.no_grad():
        for name, module in trained.get_base_model().named_modules():
            if not hasattr(module, "get_delta_weight"):
                continue
            for adapter in module.active_adapters:
                master.get_submodule(name).weight += module.get_delta_weight(adapter).float()
    return master.eval()
