"""Does a user tower gain from reading a next item that a diffusion samples, and what changes if the true item leaks?

Four retrievers are compared on ml-latest-small and completejourney. Three are modes of ``intent_diffusion``, with the
same number of parameters and the same settings. They differ in the next item that the user tower reads in training:

- ``sampled``: the output of the diffusion's sampler, as at retrieval;
- ``none``: the last item instead, without a diffusion, also at retrieval;
- ``noised_target``: the true next item with noise, as in the released code; this leaks the target.

The fourth is ``two towers``, with the same settings. Logs are split by time, and the whole catalogue is ranked without
the items that the user has seen.

Stated before the first run: ``sampled`` has a higher recall than ``none`` and than ``noised_target``, although the loss
of ``noised_target`` is lower. In addition, all models are trained on the log ``chance``, in which every item is random.
Nothing can be learnt there, so a lower loss comes from the leak.

Each row is an arm on a log: ``R@20``, the recall of the first 20 items (mean over seeds and users); ``loss``, the last
training loss; ``sampled minus arm``, the difference in recall, paired by user, with its 95 % interval from ``low`` to
``high``; ``users``, ``seeds`` and ``CPU seconds``. A full run takes about 14 minutes of CPU time on one core.

    python -m benchmarks.intent [--quick] [--json benchmarks/results/intent.json]

``INTENT_DATA`` names one or both logs, separated by spaces. A quick run uses only ``chance``.
"""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.components.comparison import interval
from benchmarks.harness import Result, public_data, run
from benchmarks.sequential import by_time, last_out
from taiji.core.component import Requests
from taiji.data import Dataset, load_source
from taiji.data.schema import Tables
from taiji.metrics.list_metrics import Targets, hits, recall
from taiji.models.retrieval.intent_diffusion import IntentDiffusion, IntentDiffusionSettings
from taiji.models.retrieval.two_towers import TwoTowers, TwoTowersSettings

MODES = ("sampled", "none", "noised_target")
"""Modes of ``intent_diffusion``. The first is compared with each of the others."""
SHARED: dict[str, Any] = {
    "width": 32,
    "hidden": 64,
    "epochs": 8,
    "history": 20,
    "batch": 512,
    "seen": "drop",
    "device": "cpu",
}
"""Settings that all arms share."""
SEEDS = 3
LOGS: dict[str, dict[str, Any]] = {"ml-latest-small": {}, "completejourney": {"epochs": 6, "max_rows": 20_000}}
"""Logs, each with its changes of the settings. On the larger one, training uses only the latest interactions."""


def chance(users: int = 150, items: int = 60) -> Dataset:
    """Return a log in which every item is drawn at random, with eight interactions per user."""
    random = np.random.default_rng(0)
    rows = [(f"u{u}", f"i{random.integers(items):02d}", step) for u in range(users) for step in range(8)]
    columns = list(zip(*rows))
    names = sorted(set(columns[1]))
    steps = pl.from_epoch(pl.Series(columns[2]) * 86_400, "s")
    events = pl.DataFrame({"user_id": columns[0], "item_id": columns[1], "timestamp": steps, "click": 1})
    users_ = pl.DataFrame({"user_id": sorted(set(columns[0]))})
    return Dataset.from_tables(Tables(pl.DataFrame({"item_id": names, "title": names}), users_, events, "chance"))


def arms(shared: dict[str, Any]) -> dict[str, TwoTowers]:
    """Return the arms by name, not yet fitted."""
    made: dict[str, TwoTowers] = {
        mode: IntentDiffusion(IntentDiffusionSettings.model_validate({**shared, "intent": mode})) for mode in MODES
    }
    return made | {"two towers": TwoTowers(TwoTowersSettings.model_validate(shared))}


def compared(
    result: Result, data: Dataset, split: tuple[pl.DataFrame, Requests, Targets], shared: dict[str, Any], seeds: int
) -> dict[str, tuple[NDArray[np.float64], float]]:
    """Train every arm, and add its row.

    Args:
        result: result to which the rows are added.
        data: the log.
        split: training interactions, requests and targets.
        shared: settings of all arms.
        seeds: number of trainings per arm.

    Returns:
        recall per user and last loss of each arm, as means over seeds.
    """
    train, requests, targets = split
    found: dict[str, tuple[NDArray[np.float64], float]] = {}
    for name in arms(shared):
        recalls, losses, start = [], [], time.process_time()
        for seed in range(seeds):
            model = arms(shared)[name].fit(data, train, seed=seed)
            hit = hits(model.retrieve(requests, 20).items, targets)
            recalls.append(recall(hit, targets.counts, 20))
            losses.append(model.facts["losses"][-1])
        found[name] = np.mean(recalls, axis=0), float(np.mean(losses))
        row: dict[str, Any] = {
            "data": data.name,
            "arm": name,
            "R@20": float(np.nanmean(found[name][0])),
            "loss": found[name][1],
        }
        if name != MODES[0]:
            apart = found[MODES[0]][0] - found[name][0]
            row["sampled minus arm"], row["low"], row["high"] = interval(apart[np.isfinite(apart)].tolist())
        result.rows.append(row | {"users": len(requests), "seeds": seeds, "CPU seconds": time.process_time() - start})
        result.so_far()
    return found


def measure(quick: bool) -> Result:
    """Compare the arms on ``chance`` and, in a full run, on the logs."""
    result = Result()
    data = chance()
    small = SHARED | {
        "width": 16,
        "hidden": 32,
        "epochs": 12,
        "history": 6,
        "batch": 64,
        "seen": "keep",
        "learning_rate": 1e-2,
    }
    found = compared(result, data, last_out(data), small, 1)
    gap = found["sampled"][1] - found["noised_target"][1]
    result.at_least("chance: loss with the sampled item minus that with the noised target", gap, 0.1)
    if quick:
        return result
    for name in os.environ.get("INTENT_DATA", " ".join(LOGS)).split():
        source = name if name == "completejourney" else f"movielens:{public_data() / name}"
        data = Dataset.from_tables(load_source(source))
        found = compared(result, data, by_time(data), SHARED | LOGS[name], SEEDS)
        for other in ("none", "noised_target"):
            apart = found["sampled"][0] - found[other][0]
            _, low, _ = interval(apart[np.isfinite(apart)].tolist())
            result.at_least(f"{name}: low end of the gain in R@20 over {other}", low, 1e-9)
    return result


if __name__ == "__main__":
    run(measure)
