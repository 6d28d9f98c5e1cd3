"""The hooks of TRL that the trainer hangs on: checked at construction, and silenced where only a loss is wanted."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch

from taiji.core.errors import ResourceError

if TYPE_CHECKING:
    from accelerate import Accelerator

METHODS = {
    "_calculate_rewards": ("inputs", "prompts", "completions", "completion_ids_list"),
    "_generate_and_score_completions": ("inputs",),
    "_get_per_token_logps_and_entropies": ("model", "input_ids", "attention_mask", "logits_to_keep", "compute_entropy"),
    "_generate_single_turn": ("prompt_ids", "images", "multimodal_fields", "num_generations", "has_tool_images"),
    "_prepare_inputs": ("generation_batch",),
    "_compute_loss": ("model", "inputs"),
    "get_train_dataloader": (),
    "_get_train_sampler": ("dataset",),
    "_save_checkpoint": ("model", "trial"),
    "_load_optimizer_and_scheduler": ("checkpoint",),
}
ATTRIBUTES = (
    "reward_weights",
    "reward_funcs",
    "reward_func_names",
    "num_generations",
    "_metrics",
    "_step",
    "_buffered_inputs",
    "_entropy_window_stats",
    "_last_world_entropy",
    "entropy_coef",
    "multi_objective_aggregation",
    "scale_rewards",
    "aux_loss_enabled",
)
MENTIONS = {
    "_generate_and_score_completions": ("self._calculate_rewards(", "self.reward_weights", '"advantages": advantages'),
    "_compute_loss": ("self._get_per_token_logps_and_entropies(model,", 'inputs["advantages"]', "self._metrics[mode]"),
}


def check_hooks(base: type, instance: Any = None) -> None:
    """Raise a :class:`TaijiError` that names what moved, if ``base`` (TRL's trainer) or, once it is made, its instance lacks a hook."""
    import trl

    moved = []
    for name, parameters in METHODS.items():
        method = getattr(base, name, None)
        known = inspect.signature(method).parameters if method else {}
        moved += [f"{name}()"] if method is None else [f"{name}({p})" for p in parameters if p not in known]
    for name, texts in MENTIONS.items():
        method = getattr(base, name, None)
        source = "".join(inspect.getsource(inspect.unwrap(method)).split()) if method else ""
        moved += [f"{name} without `{text}`" for text in texts if "".join(text.split()) not in source]
    moved += [f"self.{name}" for name in ATTRIBUTES if instance is not None and not hasattr(instance, name)]
    if moved:
        raise ResourceError(
            "This version of TRL has moved hooks that ParetoGRPOTrainer relies on.",
            where=f"trl {trl.__version__}",
            expected="the hooks of trl 1.16",
            found="; ".join(dict.fromkeys(moved)),
            fix='pip install "trl>=1.16,<1.17"',
        )


class Silent:
    """Stand-in for the accelerator in a loss whose metrics nobody reads: no collective, no wait for the device.

    Everything else is the accelerator's own.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """Zeros on the host in place of what all processes have."""
        return torch.zeros(tensor.shape or (1,), dtype=tensor.dtype)

    gather_for_metrics = gather

    def reduce(self, tensor: torch.Tensor, reduction: str = "sum") -> torch.Tensor:
        """Zeros on the host in place of the sum over processes."""
        return torch.zeros(tensor.shape, dtype=tensor.dtype)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._accelerator, name)
