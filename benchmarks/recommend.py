"""Does each component of a recommender gain where its mechanism is at work, and nothing where it is not?

In the world `short-video` and in twins in which mechanisms make no difference, a recommender is built from the log of an even choice:
popularity, co-occurrence, SASRec, their merge, a ranker. The gain of a component is the true expected reward of the lists of all
components minus that of the lists without it, on the same requests of the test period, with a paired interval over users. Truth,
and no estimate: nothing is drawn but the log.

What a component can use, told before it was run: popularity that some items please everybody more (quality, and bait that lures); co-occurrence and
SASRec that tastes differ and histories tell them; the ranker both. So in the twin without quality and bait popularity must not gain,
in the twin without tastes co-occurrence and SASRec must not, and without all of them nobody must. Checks are on the twins, at the lower end of the
interval of the mean gain; whether a component gains in the world is told and not checked. Only requests that both variants answer with a whole
list are compared: without popularity, users without a history get no list, which is no matter of these mechanisms (`answered` tells).

    python -m benchmarks.recommend [--quick] [--json FILE]
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from benchmarks.harness import Result, run
from taiji.cascade.assembly import make_retriever
from taiji.cascade.evaluation import WHOLE, evaluate_recommender
from taiji.cascade.requests import period_requests
from taiji.cascade.settings import RecommendSettings
from taiji.core.progress import track
from taiji.data import Dataset, Split, exposures, time_split
from taiji.experiments.world_lists import WorldTruth
from taiji.metrics.bootstrap import Ratio
from taiji.metrics.intervals import estimate
from taiji.models.ranking import train_ranker
from taiji.models.ranking.dcn import DCNRanker
from taiji.world import World

TWINS: dict[str, tuple[str, ...]] = {
    "world": (),
    "without quality and bait": ("content.quality", "satisfaction"),
    "without tastes": ("taste",),
    "without all of them": ("content.quality", "satisfaction", "taste"),
}
IDLE: dict[str, tuple[str, ...]] = {
    "without quality and bait": ("popular",),
    "without tastes": ("together", "sasrec"),
    "without all of them": ("popular", "together", "sasrec", "the ranker"),
}
"""Twin to the components that have nothing to use there."""
COMPONENTS = ("popular", "together", "sasrec", "the ranker")


def measure(quick: bool) -> Result:
    result = Result()
    size = {"users": 120, "items": 200, "days": 8} if quick else {"users": 800, "items": 500, "days": 14}
    seeds = 1 if quick else 2
    gains: dict[tuple[str, str], list[np.ndarray]] = {}
    truths: dict[tuple[str, str], list[np.ndarray]] = {}
    jobs = [(seed, twin) for seed in range(seeds) for twin in TWINS]
    for seed, twin in track(jobs, "worlds", unit="recommenders"):
        for variant, values in recommended(seed, TWINS[twin], quick, **size).items():
            truths.setdefault((twin, variant), []).append(values)
    for twin in TWINS:
        whole = truths[twin, WHOLE]
        for (where, variant), found in truths.items():
            if where == twin:
                level = estimate(Ratio.of_values(np.concatenate(found)))
                result.rows.append({"part": "true reward", "where": twin, "what": variant, **level})
        for component in COMPONENTS:
            pairs = [a - b for a, b in zip(whole, truths[twin, f"without {component}"])]
            answered = float(np.mean(np.isfinite(np.concatenate(pairs))))
            gains[twin, component] = pairs
            gap = estimate(Ratio.of_values(np.concatenate(pairs)))
            by_seed = [round(float(np.nanmean(pair)), 4) for pair in pairs]
            result.rows.append(
                {"part": "gain", "where": twin, "what": component, **gap, "answered": answered, "seeds": by_seed}
            )
    for twin, idle in IDLE.items():
        for component in idle:
            low = estimate(Ratio.of_values(np.concatenate(gains[twin, component])))["low"]
            result.at_most(f"{twin}: lower end of the gain of {component}", np.nan if low is None else low, 0.0)
    return result


def recommended(seed: int, twin: tuple[str, ...], quick: bool, **size: Any) -> dict[str, np.ndarray]:
    """Return the true expected reward (B,) of every variant's lists, NaN where a list is not whole."""
    world = World("short-video", seed, **size)
    for mechanism in twin:
        world = world.twin(mechanism)
    log = Dataset.from_tables(world.log())
    split = time_split(log)
    start, _ = split.interval("test")
    first, _, _, test, end = split.bounds
    settings = RecommendSettings(
        retrievers={
            "popular": {"model": "popularity", "half_life_days": 28},
            "together": {"model": "cooccurrence"},
            "sasrec": {"model": "sasrec", **({"epochs": 3, "width": 16, "layers": 1} if quick else {"width": 32})},
        }
    )
    past = log.events.filter(pl.col("time") < start)
    retrievers = {
        name: make_retriever(name, values).fit(log, past, seed=seed) for name, values in settings.retrievers.items()
    }
    rows = exposures(log, Split((first, first, first, test, end)), "ranker")
    small = DCNRanker.Settings(epochs=1, min_steps=60, dimension=4, hidden=(16,)) if quick else DCNRanker.Settings()
    ranker = train_ranker(log, rows, small, seed)
    assert isinstance(ranker, DCNRanker)
    requests, targets = period_requests(log, start, settings.requests, seed)
    values_of = WorldTruth(world, log).of_lists(requests)
    found = evaluate_recommender(settings, log, retrievers, ranker, requests, targets, before=start, seed=seed)
    return {
        variant: np.where((lists >= 0).all(axis=1), next(iter(values_of(lists).values())), np.nan)
        for variant, lists in found.shown.items()
    }


if __name__ == "__main__":
    run(measure)
