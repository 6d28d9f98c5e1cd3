"""The trainer's own part of a checkpoint: state of the reward weighting as JSON, and unused rollouts as safetensors.

The files are written atomically after TRL's, and the JSON file is the last.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
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

    from taiji.alignment.front import Front
    from taiji.alignment.step_state import Batch

logger = logging.getLogger(__name__)
STATE = "reward_weights.json"
"""File that is written last, so that its presence marks a complete checkpoint."""


@dataclass(frozen=True)
class SavedState:
    """Content of a checkpoint.

    Attributes:
        step: number of micro-batches used so far.
        rule: state of the weighting rule.
        rollouts: unused rollouts; None if there are none.
        front: state of the Pareto front; None in checkpoints of older versions.
    """

    step: int
    rule: dict[str, Any]
    rollouts: list[Batch] | None
    front: dict[str, Any] | None


def save_state(
    folder: Path, rule: Rule, step: int, rollouts: list[Batch] | None, front: Front, accelerator: Accelerator
) -> None:
    """Write the states of rule and front to ``folder``, and the rollouts of each process.

    ``rollouts`` are the micro-batches of a partly used generation; None if no generation is partly used.
    """
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
        write_json(
            folder / STATE,
            {
                "rule": type(rule).__name__,
                "state": rule.state(),
                "step": step,
                "rollouts": rollouts is not None,
                "front": front.state(),
                "processes": accelerator.num_processes,
            },
        )


def load_state(folder: Path, rule: Rule, accelerator: Accelerator) -> SavedState | None:
    """Read the files of :func:`save_state`. Return None for a checkpoint of plain TRL.

    Raises:
        ArtifactError: the checkpoint has a different rule or number of rewards, or rollouts from a different number of
            processes.
    """
    if not (folder / STATE).exists():
        logger.warning("%s has no %s, so the reward weights start from their initial values.", folder, STATE)
        return None
    saved = read_json(folder / STATE)
    if saved["rule"] != type(rule).__name__:
        raise ArtifactError(
            "The checkpoint was written with a different weighting.",
            where=str(folder / STATE),
            expected=type(rule).__name__,
            found=saved["rule"],
            fix="use the same weighting, or start from the beginning",
        )
    if len(saved["state"]["log_weights"]) != rule.count:
        raise ArtifactError(
            "The checkpoint was written with a different number of rewards.",
            where=str(folder / STATE),
            expected=str(rule.count),
            found=str(len(saved["state"]["log_weights"])),
            fix="use the same rewards, or start from the beginning",
        )
    if not saved["rollouts"]:
        return SavedState(saved["step"], saved["state"], None, saved.get("front"))
    if saved["processes"] != accelerator.num_processes:
        raise ArtifactError(
            "The checkpoint was written by a different number of processes.",
            where=str(folder),
            expected=str(accelerator.num_processes),
            found=str(saved["processes"]),
            fix="use the same number of processes, or start from the beginning",
        )
    with safe_open(
        folder / f"rollouts-{accelerator.process_index}.safetensors", framework="pt", device=str(accelerator.device)
    ) as file:
        rollouts: list[Batch] = json.loads(file.metadata()["others"])
        for key in file.keys():  # noqa: SIM118 (safe_open is not a mapping)
            number, name = key.split("/", 1)
            rollouts[int(number)][name] = file.get_tensor(key)
    return SavedState(saved["step"], saved["state"], rollouts, saved.get("front"))
