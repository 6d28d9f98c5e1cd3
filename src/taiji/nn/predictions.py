"""Predictions of ranking tasks from a network's outputs, and their calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from taiji.data.tasks import Task
from taiji.nn.losses import output_columns, thresholds

Calibration = Mapping[str, tuple[float, float]]
"""Map from task name to (scale, shift). The logit of a probability is multiplied by the scale, and the shift is added.
For a count, the shift is added to its logarithm, and the scale is not used. A duration is multiplied by the scale, and
the shift is not used."""
LARGEST = 40.0
"""Largest absolute value of a logit; larger logits are clipped. Beyond this bound, they carry no information, and their
exponentials could overflow."""
FEWEST_LABELS = 20
"""Smallest number of labelled rows needed to calibrate a task: per class for a probability, in total for a count or a
duration."""


def decode(outputs: torch.Tensor, tasks: Sequence[Task], calibration: Calibration) -> dict[str, torch.Tensor]:
    """Return the predictions (N,) by prediction name, from the outputs of a network.

    Binary tasks and surveys give probabilities; counts, durations and grades give expectations; pairwise tasks give
    scores. The prediction of a conditional task assumes that its condition is true. For a conditional binary task, the
    joint probability of the event and its conditions is returned as well.

    Args:
        outputs: (N, O) outputs, in the columns of :func:`taiji.nn.losses.output_columns`.
        tasks: ranking tasks, each condition before the tasks that depend on it.
        calibration: calibration of each task.
    """
    found: dict[str, torch.Tensor] = {}
    joint: dict[str, torch.Tensor] = {}
    for task in tasks:
        value = found[task.name] = _decoded(task, outputs[:, output_columns(tasks)[task.name]], calibration)
        if task.kind == "binary":
            joint[task.name] = joint[task.given] * value if task.given else value
            if len(task.heads) > 1:
                found[task.heads[1]] = joint[task.name]
    return found


def _decoded(task: Task, own: torch.Tensor, calibration: Calibration) -> torch.Tensor:
    scale, shift = calibration.get(task.name, (1.0, 0.0))
    if task.kind in ("binary", "survey"):
        return _probability(scale * own[:, 0] + shift)
    if task.kind == "count":
        return torch.exp((own[:, 0] + shift).clamp(-LARGEST, LARGEST))
    if task.kind == "duration":
        return scale * (torch.exp(own[:, 0].clamp(0, LARGEST)) - 1)
    return _probability(thresholds(own)).sum(dim=1) if task.kind == "ordinal" else own[:, 0]


def _probability(logits: torch.Tensor) -> torch.Tensor:
    return 1 / (1 + torch.exp(-logits.clamp(-LARGEST, LARGEST)))


def predictions(
    outputs: NDArray[np.float64], tasks: Sequence[Task], calibration: Calibration
) -> dict[str, NDArray[np.float64]]:
    """Return the predictions of :func:`decode` as arrays (N,) float64, from an array of outputs (N, O) float64."""
    decoded = decode(torch.from_numpy(np.ascontiguousarray(outputs)), tasks, calibration)
    return {name: values.numpy() for name, values in decoded.items()}


def calibrate(
    outputs: NDArray[np.float64], labels: Mapping[str, NDArray[np.float32]], tasks: Sequence[Task]
) -> dict[str, tuple[float, float]]:
    """Return the calibration of each task, fitted to held-out rows. Probabilities are calibrated by Platt scaling,
    counts and durations by matching the mean of the labels.

    Args:
        outputs: (N, O) outputs of the network.
        labels: labels (N,) by prediction name, NaN where unknown.
        tasks: as for :func:`decode`.
    """
    found = {task.name: (1.0, 0.0) for task in tasks}
    raw = predictions(outputs, tasks, {})
    for task in tasks:
        label, predicted = labels[task.name], raw[task.name]
        known = np.isfinite(label)
        if task.kind in ("binary", "survey"):
            found[task.name] = platt(outputs[:, output_columns(tasks)[task.name].start], label)
        elif task.kind in ("count", "duration") and known.sum() >= FEWEST_LABELS and label[known].mean() > 0:
            ratio = float(label[known].mean(dtype=np.float64) / max(predicted[known].mean(), 1e-9))
            found[task.name] = (ratio, 0.0) if task.kind == "duration" else (1.0, float(np.log(ratio)))
    return found


def platt(logits: np.ndarray, labels: np.ndarray, steps: int = 50) -> tuple[float, float]:
    """Return scale and shift (a, b) that minimise the summed log-loss of σ(a · logit + b) plus ½ (a − 1)² (Platt 1999),
    by Newton's method.

    The result is (1, 0) if there are fewer than 20 rows of either label, or if the fit would reverse the order of the
    logits.
    """
    known = np.isfinite(labels)
    x, y = logits[known].astype(np.float64), labels[known].astype(np.float64)
    if min(y.sum(), len(y) - y.sum()) < FEWEST_LABELS:
        return 1.0, 0.0
    design = np.stack([x, np.ones_like(x)], axis=1)
    theta = np.array([1.0, 0.0])
    prior = np.diag([1.0, 0.0])
    for _ in range(steps):
        p = 1 / (1 + np.exp(-np.clip(design @ theta, -30, 30)))
        gradient = design.T @ (p - y) + prior @ (theta - np.array([1.0, 0.0]))
        hessian = (design * (p * (1 - p))[:, None]).T @ design + prior
        step = np.linalg.solve(hessian + 1e-9 * np.eye(2), gradient)
        theta -= step / max(1.0, float(np.abs(step).max()))
        if np.abs(step).max() < 1e-10:
            break
    return (float(theta[0]), float(theta[1])) if theta[0] > 0 else (1.0, 0.0)
