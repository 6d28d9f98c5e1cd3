"""View of the alignment training, one step at a time: metrics and rollouts."""

from __future__ import annotations

from typing import Any

import polars as pl

from taiji.inspector.run_view import RunFiles
from taiji.inspector.user import rollouts_of
from taiji.reporting.summary import RunMetrics, Step


def step_view(run: RunFiles, metrics: RunMetrics, wanted: int | None) -> dict[str, Any] | None:
    """Return the step with the number ``wanted``, and the numbers of the steps before and after it.

    If ``wanted`` is None, the first step is returned. If no step has this number, the step with the nearest number is
    returned.
    """
    steps = metrics.alignment.steps
    if not steps:
        return None
    place = 0 if wanted is None else min(range(len(steps)), key=lambda number: abs(steps[number].step - wanted))
    step, names = steps[place], list(steps[place].rewards)
    recorded = step.model_dump()
    return {
        "step": step.step,
        "first": steps[0].step,
        "last": steps[-1].step,
        "before": steps[place - 1].step if place else None,
        "after": steps[place + 1].step if place + 1 < len(steps) else None,
        "rows": [
            {
                "name": name,
                **{what: step.values(what).get(name) for what in ("rewards", "rewards_std", "weights", "indicator")},
            }
            for name in names
        ],
        "facts": {name: recorded.get(name) for name in ("loss", "kl", "entropy", "completion_length", "delta_log_w")},
        "groups": groups_of(run, step),
    }


def groups_of(run: RunFiles, step: Step) -> list[dict[str, Any]]:
    """Return the stored rollouts of a step, grouped by prompt.

    Each rollout has its rewards, their weighted sum, and the difference between this sum and the mean of its group.
    """
    frame = run.rollouts.frame
    if not len(frame):
        return []
    rows = rollouts_of(run, frame.filter(pl.col("step") == step.step).to_dicts())
    weights = {name: weight or 0.0 for name, weight in step.weights.items()}
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        row["sum"] = sum(weights.get(name, 0.0) * value for name, value in row["rewards"].items() if value is not None)
        groups.setdefault(row["example"], []).append(row)
    examples = (
        run.examples.frame.filter(pl.col("example").is_in(list(groups))).rows_by_key("example", named=True, unique=True)
        if len(run.examples.frame)
        else {}
    )
    found = []
    for example, members in groups.items():
        mean = sum(row["sum"] for row in members) / len(members)
        for row in members:
            row["above"] = row["sum"] - mean
        found.append({"example": example, "asked": examples.get(example), "mean": mean, "rollouts": members})
    return found
