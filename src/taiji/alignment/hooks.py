"""The hooks of TRL on which the trainer relies, and a replacement for its accelerator when only a loss is needed.

The existence of methods and attributes is checked at construction. Their behaviour is checked during use:
:class:`~taiji.alignment.recording.Recording` checks that TRL requests the forward pass, and
:class:`~taiji.alignment.step_state.StepState` that TRL calls the hooks in order. This module checks that TRL reads the
advantages and applies the weights.
"""

from __future__ import annotations

import inspect
import math
from typing import TYPE_CHECKING, Any

import torch

from taiji.core.errors import ResourceError

if TYPE_CHECKING:
    from accelerate import Accelerator

METHODS = {
    "_calculate_rewards": ("inputs", "prompts", "completions", "completion_ids_list"),
    "_generate": ("prompts",),
    "_generate_and_score_completions": ("inputs",),
    "_get_per_token_logps_and_entropies": ("model", "input_ids", "attention_mask", "logits_to_keep", "compute_entropy"),
    "_generate_single_turn": ("prompt_ids", "images", "multimodal_fields", "num_generations", "has_tool_images"),
    "_prepare_inputs": ("generation_batch",),
    "get_high_entropy_mask": ("entropies", "mask", "threshold"),
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
    "_logs",
    "_pending_extra_logs",
    "_step",
    "_buffered_inputs",
    "_entropy_window_stats",
    "_last_world_entropy",
    "entropy_coef",
    "multi_objective_aggregation",
    "scale_rewards",
    "aux_loss_enabled",
)
TESTED = "trl>=1.16,<1.17"
"""Versions of TRL that the tests cover."""


def check_hooks(base: type, instance: Any = None) -> None:
    """Raise a :class:`TaijiError` that names the missing hooks if ``base`` (TRL's trainer) or its instance lacks
    any."""
    moved = []
    for name, parameters in METHODS.items():
        method = getattr(base, name, None)
        known = inspect.signature(method).parameters if method else {}
        moved += [f"{name}()"] if method is None else [f"{name}({p})" for p in parameters if p not in known]
    moved += [f"self.{name}" for name in ATTRIBUTES if instance is not None and not hasattr(instance, name)]
    if moved:
        raise moved_hooks("the hooks of trl 1.16", "; ".join(dict.fromkeys(moved)))


def moved_hooks(expected: str, found: str) -> ResourceError:
    """Return the error for a version of TRL whose hooks have changed."""
    import trl

    return ResourceError(
        "ParetoGRPOTrainer relies on hooks that have changed in this version of TRL.",
        where=f"trl {trl.__version__}",
        expected=expected,
        found=found,
        fix=f'pip install "{TESTED}"',
    )


class Watched(dict[str, Any]):
    """Batch that records whether its advantages are read."""

    def __init__(self, batch: dict[str, Any], advantages: torch.Tensor) -> None:
        super().__init__({**batch, "advantages": advantages})
        self.read = False

    def __getitem__(self, name: str) -> Any:
        self.read = self.read or name == "advantages"
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.read = self.read or name == "advantages"
        return super().get(name, default)


def check_weights(logged: float, rewards: torch.Tensor, weights: torch.Tensor) -> None:
    """Raise :class:`ResourceError` if TRL's mean reward does not match these weights.

    TRL has then used other weights, because it read them before they were set.

    Args:
        logged: mean of the weighted sums that TRL used.
        rewards: (N, K) rewards; NaN where a reward does not apply.
        weights: (K,).
    """
    sums = (rewards * weights.to(rewards)).nansum(1)
    mean = float(sums[torch.isfinite(rewards).any(1)].mean())
    if abs(logged - mean) > 1e-3 * max(abs(mean), 1e-3) and mean == mean:
        raise moved_hooks(f"a mean reward of {mean:.6g} under the weights {weights.tolist()}", f"{logged:.6g}")


class Unread:
    """Replacement for a tensor that is used only for metrics: every operation returns an ``Unread``, and its value is
    NaN.

    Metrics computed from it launch no kernel on the device and copy nothing from it.
    """

    dtype = torch.float32
    device = torch.device("cpu")

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Unread:
        return cls()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *_, **__: self

    def __getitem__(self, index: Any) -> Unread:
        return self

    def __bool__(self) -> bool:
        return False

    def item(self) -> float:
        """Return NaN."""
        return math.nan

    def _itself(self, *_: Any) -> Unread:
        return self

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __invert__ = _itself


class Silent:
    """Replacement for the accelerator in a loss whose metrics are not used: no collectives, no synchronisation with the
    device.

    Everything else is delegated to the real accelerator.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator

    def gather(self, tensor: torch.Tensor) -> Unread:
        """Return an :class:`Unread` instead of gathering."""
        return Unread()

    gather_for_metrics = gather

    def reduce(self, tensor: torch.Tensor, reduction: str = "sum") -> Unread:
        """Return an :class:`Unread` instead of reducing."""
        return Unread()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.accelerator, name)
