"""The multi-task loss and the calibration of its two probabilities."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional


def multitask_loss(
    click_logit: torch.Tensor, conversion_logit: torch.Tensor, click: torch.Tensor, ctcvr: torch.Tensor, weight: float
) -> torch.Tensor:
    """Click loss plus ``weight`` times the loss of the product over the whole exposure space (ESMM, eq. 3).

    Each term is the mean over the rows where its label is known. The product's loss is computed from the logits, so it
    neither over- nor underflows: log p = logσ(a) + logσ(b), and log(1 − p) = log(e^{−a} + e^{−b} + e^{−a−b}) + log p.

    Args:
        click_logit, conversion_logit: (B,). click, ctcvr: (B,) labels 0/1, NaN where not known.
        weight: of the second term.

    Returns:
        scalar.
    """
    known = torch.isfinite(click).to(
        click_logit.dtype
    )  # a weight, not a selection: gathering costs more than the spare rows
    terms = functional.binary_cross_entropy_with_logits(
        click_logit, torch.nan_to_num(click), weight=known, reduction="sum"
    )
    loss = terms / known.sum().clamp_min(1)
    known = torch.isfinite(ctcvr).to(click_logit.dtype)
    positive = functional.logsigmoid(click_logit) + functional.logsigmoid(conversion_logit)
    negative = (
        torch.logsumexp(torch.stack([-click_logit, -conversion_logit, -click_logit - conversion_logit]), dim=0)
        + positive
    )
    product = -(known * torch.lerp(negative, positive, torch.nan_to_num(ctcvr))).sum() / known.sum().clamp_min(1)
    return loss + weight * product


def platt(logits: np.ndarray, labels: np.ndarray, steps: int = 50) -> tuple[float, float]:
    """Scale and shift (a, b) that minimise the log-loss of σ(a · logit + b) (Platt 1999), by Newton's method.

    Too little to learn from (fewer than 20 of either label) gives (1, 0); so does a fit that would reverse the order.
    """
    known = np.isfinite(labels)
    x, y = logits[known].astype(np.float64), labels[known].astype(np.float64)
    if min(y.sum(), len(y) - y.sum()) < 20:
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
