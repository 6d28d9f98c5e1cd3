"""The two diffusion retrievers in worlds with known truth, and in twins in which users have no tastes.

Metric: the true expected reward of the first ten items for a request, each shown alone, divided by that of the ten best
items (:mod:`benchmarks.generative_worlds`). ``short-video``: ``intent_diffusion`` in its three modes, which have the
same parameters and settings (``noised_target`` is the released training, which leaks the target), and ``two_towers``.
``mall``, whose users click, fill carts and buy: ``behaviour_diffusion`` whole, without its diffusion, without
behaviours, with the released masking, and ``SASRec``. The twins have one taste for everybody. Differences are paired by
seed, with Student's interval. Stated before the first run: in a twin no arm of a pair has an advantage, and in the
worlds the order is that of the logs.

    python -m benchmarks.diffusion_worlds [--quick] [--json benchmarks/results/diffusion_worlds.json]

``TAIJI_BENCHMARK_SEEDS`` (default 5) is the number of seeds, and ``TAIJI_BENCHMARK_WORLDS`` names scenarios.
"""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np

from benchmarks.components.comparison import TWIN, WORLD, interval
from benchmarks.generative_worlds import QUICK, Served
from benchmarks.harness import Result, run
from benchmarks.intent import MODES
from benchmarks.intent import SHARED as INTENT
from benchmarks.multi_behaviour import ARMS, BLIND, ENCODER, WHOLE
from benchmarks.multi_behaviour import SHARED as BEHAVIOUR
from taiji.models.retrieval.behaviour_diffusion import BehaviourDiffusion
from taiji.models.retrieval.behaviour_settings import BehaviourDiffusionSettings
from taiji.models.retrieval.intent_diffusion import IntentDiffusion, IntentDiffusionSettings
from taiji.models.retrieval.popularity import Popularity
from taiji.models.retrieval.retriever import CatalogueRetriever
from taiji.models.retrieval.sasrec import SASRec, SASRecSettings
from taiji.models.retrieval.two_towers import TwoTowers, TwoTowersSettings
from taiji.world import World

SIZES: dict[str, dict[str, Any]] = {
    "short-video": {"users": 600, "items": 200, "days": 12},
    "mall": {"users": 600, "items": 300, "days": 12},
}
TRAINING: dict[str, dict[str, Any]] = {
    "short-video": INTENT | {"seen": "keep", "learning_rate": 3e-3, "batch": 128, "epochs": 24},  # chosen on seed 100
    "mall": BEHAVIOUR | {"seen": "keep", "epochs": 24, "diffusion_epochs": 12, "valid_users": 200},
}
FEW: dict[str, dict[str, Any]] = {
    "short-video": {"epochs": 1},
    "mall": {"epochs": 1, "diffusion_epochs": 1, "head_epochs": 1, "valid_users": 20},
}
PAIRS = {
    "short-video": (
        *((MODES[0], other) for other in (*MODES[1:], "two towers")),
        ("two towers", "popularity"),
    ),
    "mall": ((ENCODER, BLIND), (WHOLE, ENCODER), (WHOLE, "whole, masking as released"), (WHOLE, "SASRec")),
}


def fitted(scenario: str, data: Served, seed: int, shared: dict[str, Any]) -> dict[str, CatalogueRetriever]:
    """Return the arms of a scenario, fitted to a world's log."""
    popular = Popularity()
    popular.settings = popular.settings.model_copy(update={"seen": "keep"})
    arms: dict[str, CatalogueRetriever] = {"popularity": popular.fit(data.dataset, data.train)}
    if scenario == "short-video":
        for mode in MODES:
            model = IntentDiffusion(IntentDiffusionSettings.model_validate({**shared, "intent": mode}))
            arms[mode] = model.fit(data.dataset, data.train, seed=seed)
        towers = TwoTowers(TwoTowersSettings.model_validate(shared))
        return arms | {"two towers": towers.fit(data.dataset, data.train, seed=seed)}
    encoder: BehaviourDiffusion | None = None
    for arm in (ENCODER, BLIND, WHOLE, "whole, masking as released", "SASRec"):
        values = {**shared, **ARMS[arm]}
        if arm == "SASRec":
            own = {name: value for name, value in values.items() if name in SASRecSettings.model_fields}
            arms[arm] = SASRec(SASRecSettings.model_validate(own)).fit(data.dataset, data.train, seed=seed)
            continue
        made = BehaviourDiffusion(BehaviourDiffusionSettings.model_validate(values))
        if made.settings.diffusion and encoder is not None:
            made.encoder_of = encoder
        arms[arm] = made.fit(data.dataset, data.train, seed=seed)
        encoder = made if arm == ENCODER else encoder
    return arms


def scenario(result: Result, name: str, seeds: int, quick: bool) -> None:
    """Compare the arms of one scenario in the world and in its twin."""
    found: dict[tuple[str, str], list[float]] = {}
    for seed in range(seeds):
        for place in (WORLD, TWIN):
            world, start = World(name, seed, **(QUICK if quick else SIZES[name])), time.process_time()
            data = Served.of(world.twin("taste") if place == TWIN else world, seed)
            shared = TRAINING[name] | (FEW[name] if quick else {})
            for arm, model in fitted(name, data, seed, shared).items():
                model.availability = data.available
                found.setdefault((place, arm), []).append(share := data.share(model))
                row = {"scenario": name, "place": place, "arm": arm, "seed": seed, "share of the best": share}
                result.rows.append(row | {"loss": (model.facts.get("losses") or [None])[-1]})
            result.rows[-1]["CPU seconds of all arms"] = time.process_time() - start
            result.so_far()
    for place in (WORLD, TWIN):
        for arm, control in PAIRS[name]:
            value, low, high = interval(np.subtract(found[place, arm], found[place, control]).tolist())
            row = {"scenario": name, "place": place, "arm": f"{arm} − {control}", "share of the best": value}
            result.rows.append({**row, "low": low, "high": high})
            if place == TWIN and not quick:
                result.at_most(f"{name}'s twin: {arm} over {control}, lower end", low, 0.0)
        for arm in dict.fromkeys(arm for where, arm in found if where == place):
            mean = {
                "scenario": name,
                "place": place,
                "arm": arm,
                "share of the best": float(np.mean(found[place, arm])),
            }
            result.rows.append(mean | {"seeds": seeds})
    result.so_far()


def measure(quick: bool) -> Result:
    """Run every scenario."""
    result, seeds = Result(), 2 if quick else int(os.environ.get("TAIJI_BENCHMARK_SEEDS", "5"))
    for name in os.environ.get("TAIJI_BENCHMARK_WORLDS", ",".join(PAIRS)).split(","):
        scenario(result, name, seeds, quick)
    if quick:
        shares = [row["share of the best"] for row in result.rows if "seed" in row]
        result.at_least("lowest share of the best lists", min(shares), 1e-3)
        result.at_most("highest share of the best lists", max(shares), 1.0)
    return result


if __name__ == "__main__":
    run(measure)
