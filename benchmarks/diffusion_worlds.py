"""Do the two diffusion retrievers find better items than their controls, if the truth is known?

The metric, ``share of the best``, is the true expected reward of the ten items that a retriever ranks first for a
request, divided by the reward of the ten best items; an item's reward is the reward of showing it alone. Each scenario
is also run as a twin (negative control), in which users have no tastes. Arms:

- world ``short-video``: ``intent_diffusion`` in its three modes, which have the same parameters and settings:
  ``sampled``, ``none`` (without diffusion), and ``noised_target`` (trained as in the released code, which leaks the
  target); ``two_towers`` with the same settings; and popularity;
- world ``mall``, whose users click, fill carts and buy: ``behaviour_diffusion`` complete (``diffusion, guidance, own
  experts``), its encoder without the diffusion, that encoder without behaviours, the complete model with the masking of
  the released code, ``SASRec``, and popularity.

All arms of a scenario are fitted to the same log and get the same requests. Stated before the first run: in a twin,
neither arm of a pair has an advantage; in the worlds, the arms have the same order as on the logs of
`benchmarks.intent` and `benchmarks.multi_behaviour`. Only the twins are checked.

Rows: one per arm, seed and ``place`` (world or twin), with the last training ``loss``; then, per pair of arms
(``ARM − CONTROL``), the mean difference over seeds with Student's 95 % interval from ``low`` to ``high``; then the mean
of each arm. ``CPU seconds of all arms`` stands in the last row of a seed and place. A full run takes about 18 minutes
of CPU time on one core.

    python -m benchmarks.diffusion_worlds [--quick] [--json benchmarks/results/diffusion_worlds.json]

``TAIJI_BENCHMARK_SEEDS`` (default 5) is the number of seeds; ``TAIJI_BENCHMARK_WORLDS`` names the scenarios to run,
separated by commas (default: both).
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
"""Sizes of the worlds."""
TRAINING: dict[str, dict[str, Any]] = {
    "short-video": INTENT
    | {"seen": "keep", "learning_rate": 3e-3, "batch": 128, "epochs": 24},  # chosen for two_towers on seed 100
    "mall": BEHAVIOUR | {"seen": "keep", "epochs": 24, "diffusion_epochs": 12, "valid_users": 200},
}
"""Settings that all arms of a scenario share."""
FEW: dict[str, dict[str, Any]] = {
    "short-video": {"epochs": 1},
    "mall": {"epochs": 1, "diffusion_epochs": 1, "head_epochs": 1, "valid_users": 20},
}
"""Settings of a quick run, which replace the others."""
PAIRS = {
    "short-video": (
        *((MODES[0], other) for other in (*MODES[1:], "two towers")),
        ("two towers", "popularity"),
    ),
    "mall": ((ENCODER, BLIND), (WHOLE, ENCODER), (WHOLE, "whole, masking as released"), (WHOLE, "SASRec")),
}
"""Pairs of an arm and its control, by scenario."""


def fitted(scenario: str, data: Served, seed: int, shared: dict[str, Any]) -> dict[str, CatalogueRetriever]:
    """Return the arms of a scenario by name, fitted to the log of a world."""
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
    """Compare the arms of one scenario in the world and in its twin, and add the rows and checks."""
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
    """Run the chosen scenarios."""
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
