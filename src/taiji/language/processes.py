"""Training in several processes (`accelerate launch`, `torchrun`): their roles, and gathering of the trained model."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from taiji.core.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, Trainer

    from taiji.language.causal_lm import LanguageModel


def processes() -> int:
    """Return the number of processes that train together, as set by the launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def first_process() -> bool:
    """Return True for the process of rank 0, which writes the results."""
    return int(os.environ.get("RANK", "0")) == 0


def check_gatherable(trainer: Trainer, lora_rank: int) -> None:
    """Check, before training, that the model can be gathered afterwards.

    Raises:
        ConfigError: adapters would be trained under FSDP. Sharded adapters cannot be merged.
    """
    if trainer.is_fsdp_enabled and lora_rank:
        raise ConfigError(
            "Adapters cannot be trained under FSDP.",
            found=f"lora_rank {lora_rank}",
            fix="set lora_rank: 0, or launch without FSDP, since adapters fit on one GPU",
        )


def whole_model(lm: LanguageModel, trainer: Trainer, lora_rank: int) -> PreTrainedModel | None:
    """Return the trained model, merged and in float32, in the first process, and None in the other processes. Every
    process must call this function.

    Under FSDP each process holds a part of the weights, and the parts are gathered in the first process.

    Raises:
        ConfigError: as in :func:`check_gatherable`.
    """
    from taiji.language.adapters import merge_adapters

    accelerator = trainer.accelerator
    check_gatherable(trainer, lora_rank)
    if trainer.is_fsdp_enabled:
        weights = accelerator.get_state_dict(trainer.model)
        if not first_process():
            return None
        model = lm.master()
        model.load_state_dict({name: value.float() for name, value in weights.items()})
    else:
        model = accelerator.unwrap_model(trainer.model)
        if not first_process():
            return None
        if lora_rank:
            model = merge_adapters(lm, model)
    model.config.use_cache = True
    return model
