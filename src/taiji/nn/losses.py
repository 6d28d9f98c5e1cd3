"""Losses of ranking tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from itertools import combinations

import torch
from torch.nn import functional

from taiji.core.errors import ConfigError
from taiji.data.tasks import Task


def output_columns(tasks: Sequence[Task]) -> dict[str, slice]:
    """Return the output columns of each task by its name: one column, or one per threshold of an ordinal task."""
    columns, start = {}, 0
    for task in tasks:
        columns[task.name] = slice(start, start + task.outputs)
        start += task.outputs
    return columns


RARE = 1 / 16
"""Smallest share of known labels at which a task has its full weight. Below this share, the task is down-weighted, so
that no row weighs more than 16 rows of a task whose label is always known."""


class MultitaskLoss:
    """Weighted sum of the tasks' losses. The loss of a pairwise task is :func:`pairwise_loss`. The loss of any other
    task is the mean over the rows whose label is known, reduced if these are few (:func:`known_mean`).

    A conditional binary task learns from its joint label (the event and all its conditions) on all rows (ESMM, Ma et
    al. 2018, eq. 3). Any other conditional task learns only from the rows on which its condition is true.

    Args:
        tasks: ranking tasks, each condition before the tasks that depend on it.
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        columns = output_columns(tasks)
        if not any(task.weight for task in tasks):
            raise ConfigError(
                "There is nothing to learn: every task has weight 0.",
                where="ranking.task_weights",
                expected="a weight above 0",
                found=", ".join(task.name for task in tasks),
            )
        self.labels = tuple(task.heads[-1] for task in tasks if task.weight)
        """Names of the labels that are used."""
        self._parts = [
            (task, [columns[name] for name in chain(task, tasks)], task.heads[-1]) for task in tasks if task.weight
        ]

    def __call__(
        self, outputs: torch.Tensor, labels: Mapping[str, torch.Tensor], group: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the loss, a scalar.

        Args:
            outputs: (B, O) outputs of the network, in the columns of :func:`output_columns`.
            labels: labels (B,) by prediction name, NaN where unknown.
            group: (B,) request of each row, needed by pairwise tasks.
        """
        single, total = outputs.unbind(dim=1), outputs.new_zeros(())
        for task, places, label in self._parts:
            total = total + task.weight * task_loss(task, [single[place] for place in places], labels[label], group)
        return total


def task_loss(
    task: Task, logits: Sequence[Sequence[torch.Tensor]], label: torch.Tensor, group: torch.Tensor | None
) -> torch.Tensor:
    """Return one task's loss.

    Args:
        task: the task.
        logits: lists of outputs, each (B,): one list per condition of the task, outermost condition first, then the
            list of the task itself.
        label: (B,) labels of the task, NaN where unknown.
        group: (B,) request of each row, needed by pairwise tasks.
    """
    own = logits[-1]
    known = torch.isfinite(label).to(
        own[0].dtype
    )  # a 0/1 weight: gathering the known rows would cost more than computing all rows
    label = torch.nan_to_num(label)
    if task.kind == "survey" or (task.kind == "binary" and len(logits) == 1):
        summed = functional.binary_cross_entropy_with_logits(own[0], label, weight=known, reduction="sum")
        return summed / _weight_of_known(known)
    if task.kind == "binary":
        terms = joint_loss([outputs[0] for outputs in logits], label)
    elif task.kind == "count":
        terms = torch.exp(own[0]) - label * own[0]  # Poisson, without the term that is constant in the parameters
    elif task.kind == "duration":
        terms = 0.5 * (own[0] - torch.log1p(label)).square()
    elif task.kind == "ordinal":
        over = thresholds(torch.stack(list(own), dim=1))
        above = (label.unsqueeze(1) > torch.arange(over.shape[1], device=label.device)).to(over.dtype)
        terms = functional.binary_cross_entropy_with_logits(over, above, reduction="none").sum(dim=1)
    else:
        assert group is not None
        return pairwise_loss(own[0], label, known, group)
    return known_mean(terms, known)


def known_mean(terms: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Return the mean of the known terms. The divisor is at least :data:`RARE` times the number of rows.

    With a plain mean, a single row with a rare label would weigh as much as all rows of another label. A survey that is
    answered on one row in a thousand would then destabilise the shared layers and decide when training stops.

    Args:
        terms: (B,) loss of each row.
        known: (B,), 1 where a term is known and 0 elsewhere.
    """
    return (known * terms).sum() / _weight_of_known(known)


def _weight_of_known(known: torch.Tensor) -> torch.Tensor:
    return known.sum().clamp_min(max(1.0, RARE * len(known)))


def chain(task: Task, tasks: Sequence[Task]) -> list[str]:
    """Return the names of a task's conditions, outermost first, then the task's own name."""
    named = {other.name: other for other in tasks}
    names = [task.name]
    while (parent := named[names[0]].given) is not None:
        names.insert(0, parent)
    return names


def joint_loss(logits: Sequence[torch.Tensor], label: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of a joint label, which is 1 if all events happen.

    The computation uses the logits aᵢ, so that it neither overflows nor underflows. The joint probability p is given by
    log p = Σ logσ(aᵢ). The quantity 1/p − 1 = Π(1 + e^{−aᵢ}) − 1 is the sum of e^{−Σ aᵢ} over all non-empty subsets of
    the events.

    Args:
        logits: logits (B,) of each event given that the previous events happen.
        label: (B,) joint labels in [0, 1].

    Returns:
        Losses (B,).
    """
    positive = reduce(torch.add, [functional.logsigmoid(logit) for logit in logits])
    opposite = [-logit for logit in logits]
    subsets = [reduce(torch.add, s) for size in range(1, len(logits) + 1) for s in combinations(opposite, size)]
    negative = torch.logsumexp(torch.stack(subsets), dim=0) + positive
    return -torch.lerp(negative, positive, label)


def thresholds(outputs: torch.Tensor) -> torch.Tensor:
    """Return the logits (B, K) of "grade above k" from outputs (B, K). The first logit is the first output, and each
    further logit is lower than the previous one."""
    steps = torch.cat([outputs[:, :1], -functional.softplus(outputs[:, 1:])], dim=1)
    return steps.cumsum(dim=1)


def pairwise_loss(scores: torch.Tensor, label: torch.Tensor, known: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
    """Return the mean logistic loss over the pairs of rows that belong to the same request and have different labels
    (RankNet, Burges et al. 2005).

    Args:
        scores, label, known: (B,) score and label of each row, and 1 where the label is known, 0 elsewhere.
        group: (B,) request of each row.
    """
    better = (group.unsqueeze(1) == group.unsqueeze(0)) & (label.unsqueeze(1) > label.unsqueeze(0))
    pairs = better.to(scores.dtype) * known.unsqueeze(1) * known.unsqueeze(0)
    return (pairs * functional.softplus(scores.unsqueeze(0) - scores.unsqueeze(1))).sum() / pairs.sum().clamp_min(1)
