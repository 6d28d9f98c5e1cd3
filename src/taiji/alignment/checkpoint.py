"""The trainer's own part of a checkpoint: weights as JSON, rollouts under way as safetensors; written last and atomically."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from taiji.core.artifacts import atomic_file, read_json, write_json
from taiji.core.errors import ArtifactError
from taiji.nn.weighting_rules import Rule

if TYPE_CHECKING:
    from accelerate import Accelerator

logger = logging.getLogger(__name__)
STATE = "reward_weights.json"
"""Written last of all, so its presence says that the checkpoint is whole."""


def save_state(
    folder: Path, rule: Rule | None, step: int, rollouts: list[dict[str, Any]] | None, accelerator: Accelerator
) -> None:
    """Write the rule's state and each process's buffered rollouts (only when a generation is partly used) to ``folder``."""
    if rollouts is not None:
        tensors: dict[str, torch.Tensor] = {}
        others = []
        for number, batch in enumerate(rollouts):
            tensors |= {
                f"{number}/{key}": value.contiguous().clone()
                for key, value in batch.items()
                if isinstance(value, torch.Tensor)
            }
            others.append({key: value for key, value in batch.items() if not isinstance(value, torch.Tensor)})
        with atomic_file(folder / f"rollouts-{accelerator.process_index}.safetensors") as temporary:
            save_file(tensors, temporary, metadata={"others": json.dumps(others)})
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        state = None if rule is None else rule.state()
        name = None if rule is None else type(rule).__name__
        write_json(
            folder / STATE,
            {
                "rule": name,
                "state": state,
                "step": step,
                "rollouts": rollouts is not None,
                "processes": accelerator.num_processes,
            },
        )


def load_state(
    folder: Path, weighting: str, accelerator: Accelerator
) -> tuple[int, dict[str, Any] | None, list[dict[str, Any]] | None] | None:
    """Read what :func:`save_state` wrote: (step, rule state, rollouts); None for a checkpoint of stock TRL."""
    from taiji.nn.weighting_rules import RULES

    if not (folder / STATE).exists():
        logger.warning("%s has no %s: the reward weights start afresh.", folder, STATE)
        return None
    saved = read_json(folder / STATE)
    if saved["rule"] not in (None, RULES[weighting].__name__):
        raise ArtifactError(
            "The checkpoint was made with another weighting.",
            where=str(folder / STATE),
            expected=RULES[weighting].__name__,
            found=saved["rule"],
            fix="use the same weighting, or start afresh",
        )
    if not saved["rollouts"]:
        return saved["step"], saved["state"], None
    if saved["processes"] != accelerator.num_processes:
        raise ArtifactError(
            "The checkpoint holds rollouts of another number of processes.",
            where=str(folder),
            expected=str(saved["processes"]),
            found=str(accelerator.num_processes),
        )
    with safe_open(
        folder / f"rollouts-{accelerator.process_index}.safetensors", framework="pt", device=str(accelerator.device)
    ) as file:
        rollouts: list[dict[str, Any]] = json.loads(file.metadata()["others"])
        for key in file.keys():  # noqa: SIM118 (safe_open is no mapping)
            number, name = key.split("/", 1)
            rollouts[int(number)][name] = file.get_tensor(key)
    return saved["step"], saved["state"], rollouts
