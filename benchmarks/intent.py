"""Does a sampled next item help the user tower, and what does training on the noised target do to it?

On ml-latest-small and completejourney, split by time and with the whole catalogue ranked, the benchmark reports
recall@20 of ``intent_diffusion`` in its three modes, which have the same parameters and the same settings, and of
``two_towers``. Values are means over seeds, and differences are paired by user. Stated before the first run: training
on the sampler's output beats the same tower without diffusion, and it beats training on the noised target, although the
latter has a lower loss. ``INTENT_DATA`` names one or both logs. A quick run uses only a log whose next item is random:
nothing can be learnt there, so a lower loss comes from the leak.
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
SHARED: dict[str, Any] = {
    "width": 32,
    "hidden": 64,
    "epochs": 8,
    "history": 20,
    "batch": 512,
    "seen": "drop",
    "device": "cpu",
}
SEEDS = 3
LOGS: dict[str, dict[str, Any]] = {"ml-latest-small": {}, "completejourney": {"epochs": 6, "max_rows": 20_000}}
"""Logs, and the settings that they change; on the larger log, only the latest rows are used for training."""


def chance(users: int = 150, items: int = 60) -> Dataset:
    """Return a log in which every item is drawn at random."""
    random = np.random.default_rng(0)
    rows = [(f"u{u}", f"i{random.integers(items):02d}", step) for u in range(users) for step in range(8)]
    columns = list(zip(*rows))
    names = sorted(set(columns[1]))
    steps = pl.from_epoch(pl.Series(columns[2]) * 86_400, "s")
    events = pl.DataFrame({"user_id": columns[0], "item_id": columns[1], "timestamp": steps, "click": 1})
    users_ = pl.DataFrame({"user_id": sorted(set(columns[0]))})
    return Dataset.from_tables(Tables(pl.DataFrame({"item_id": names, "title": names}), users_, events, "chance"))


def arms(shared: dict[str, Any]) -> dict[str, TwoTowers]:
    """Return the models, not yet fitted."""
    made: dict[str, TwoTowers] = {
        mode: IntentDiffusion(IntentDiffusionSettings.model_validate({**shared, "intent": mode})) for mode in MODES
    }
    return made | {"two towers": TwoTowers(TwoTowersSettings.model_validate(shared))}


def compared(
    result: Result, data: Dataset, split: tuple[pl.DataFrame, Requests, Targets], shared: dict[str, Any], seeds: int
) -> dict[str, tuple[NDArray[np.float64], float]]:
    """Add a row for each arm, and return its recall per user and its last loss, as means over seeds."""
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
    """Train and compare."""
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
