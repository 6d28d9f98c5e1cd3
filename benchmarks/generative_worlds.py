"""Blocks of the generative decoder in worlds whose truth is known, and in twins where a block's reason is taken away.

Metric: the expected reward of the first ten items offered to a request, each shown alone, over that of the ten best items there, by the
world's truth; so no draw of clicks adds noise. Requests are those of the last third of the log's time; lists are asked for at their times. Codes are residual
k-means of title vectors, the same for all arms; clicks come from a random policy. ``short-video`` has long and short-term tastes, and its twin has
none: what is left there is quality, which is alike for everybody. ``mall`` has a taste per surface on top of a common one, and its twin only
the common one; items of other surfaces than the request's are left out of every arm's list. A block and its control have the same training settings;
thinking steps are held against as many filler steps. Differences are paired by seed, with Student's interval.

Checks: the plain decoder beats popularity where there are tastes, and no block differs from its control in a twin. The blocks' effects in the
worlds are told as they come out.

    python -m benchmarks.generative_worlds [--quick] [--json benchmarks/results/generative_worlds.json]

``TAIJI_BENCHMARK_SEEDS`` (4) says how many seeds.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from benchmarks.components.comparison import TWIN, WORLD, interval
from benchmarks.generative import BLOCKS
from benchmarks.harness import Result, run
from taiji.core.component import NO_ITEM, Requests
from taiji.data.availability import Availability
from taiji.data.dataset import Dataset
from taiji.language.embed import load_embedder
from taiji.models.retrieval.code_decoder import CodeDecoder
from taiji.models.retrieval.code_settings import CodeDecoderSettings
from taiji.models.retrieval.item_knn import ItemKNN
from taiji.models.retrieval.popularity import Popularity
from taiji.models.retrieval.retriever import CatalogueRetriever
from taiji.models.retrieval.sasrec import SASRec
from taiji.world import World

FIRST, DEPTH = 10, 40
"""Items of a list that count, and items retrieved, of which those of another surface are left out."""
TRAINED, REQUESTS = 0.67, 600
"""Share of the log's time before the test, and requests of the test."""
PLAIN: dict[str, Any] = {
    "width": 32, "history": 20, "dropout": 0.2, "batch": 32, "learning_rate": 3e-3, "epochs": 24, "check_every": 3,
    "patience": 2, "valid_users": 300, "beam": 40, "seen": "keep", "device": "cpu", "coder_settings": {"levels": 2, "size": 8},
}  # fmt: skip
SIZES: dict[str, Any] = {"users": 1000, "items": 400, "days": 15}
QUICK: dict[str, Any] = {"users": 150, "items": 80, "days": 5}
SCENARIOS: dict[str, tuple[str, dict[str, tuple[str, dict[str, Any]]]]] = {
    "short-video": (
        "taste",
        BLOCKS
        | {
            "skipped exposures": ("plain", {"skip_weight": 0.3}),
            "time": ("plain", {"time": True}),
        },
    ),
    "mall": ("surfaces.taste", {"scenario prompts": ("plain", {"scenario": "scenario"})}),
}
"""Scenario to the part that its twin lacks, and the blocks that are tried there: name to control and settings."""


@dataclass(frozen=True)
class Served:
    """A world's log before the test, the requests of the test, and what items are worth at each."""

    dataset: Dataset
    train: pl.DataFrame
    requests: Requests
    worth: np.ndarray
    vectors: np.ndarray

    @classmethod
    def of(cls, world: World, seed: int) -> Served:
        """Let the world run under its policy, and draw requests from its last third."""
        dataset = Dataset.from_tables(world.log())
        events, when = dataset.events, dataset.events["time"].to_numpy()
        end = int(when[0] + TRAINED * (when[-1] - when[0]))
        asked = events.filter(pl.col("time") >= end).unique(["user", "time"], keep="first", maintain_order=True)
        asked = asked[np.sort(np.random.default_rng(seed).permutation(len(asked))[:REQUESTS])]
        context = {name: asked[name].to_numpy() for name in dataset.event_columns.context}
        requests = Requests(asked["user"].to_numpy().astype(np.int64), asked["time"].to_numpy(), context)
        vectors = load_embedder("wordllama").encode([title or "" for title in dataset.items["title"]])
        return cls(dataset, events.filter(pl.col("time") < end), requests, worth(world, dataset, requests), vectors)

    def share(self, retriever: CatalogueRetriever) -> float:
        """Return the worth of a fitted retriever's lists over that of the best lists."""
        found = retriever.retrieve(self.requests, min(DEPTH, self.dataset.n_items)).items
        values = np.where(found == NO_ITEM, np.nan, np.take_along_axis(self.worth, np.maximum(found, 0), axis=1))
        first = np.argsort(np.isnan(values), axis=1, kind="stable")[:, :FIRST]
        taken = np.nan_to_num(np.take_along_axis(values, first, axis=1))
        best = -np.sort(-np.nan_to_num(self.worth), axis=1)[:, :FIRST]
        return float(taken.sum() / best.sum())


def worth(world: World, dataset: Dataset, requests: Requests) -> np.ndarray:
    """Return expected rewards (B, N) of the items at the requests' times, NaN where a request may not be shown them."""
    users = dataset.users["user_id"].to_numpy()[requests.user]
    items, times = dataset.items["item_id"].to_numpy(), np.repeat(requests.time, dataset.n_items)
    values = world.truth.value(np.repeat(users, len(items)), np.tile(items, len(users)), times)
    shown = Availability.of(dataset).at(requests.time)
    if "surface" in dataset.items.columns:
        shown = shown & (requests.columns["scenario"][:, None] == dataset.items["surface"].to_numpy()[None])
    return np.where(shown, values.reshape(shown.shape), np.nan)


def fitted(data: Served, options: Mapping[str, Any], seed: int) -> CodeDecoder:
    """Return the decoder with these options, trained."""
    settings = CodeDecoderSettings.model_validate({**PLAIN, **options})
    return CodeDecoder(settings, vectors=data.vectors).fit(data.dataset, data.train, seed=seed)


def simple(data: Served, seed: int) -> dict[str, float]:
    """Return the shares of retrievers that are not generative."""
    models: dict[str, CatalogueRetriever] = {
        "popularity": Popularity(),
        "ItemKNN": ItemKNN(),
        "SASRec": SASRec(SASRec.Settings(width=32, epochs=24, device="cpu")),
    }
    found = {}
    for name, model in models.items():
        model.settings = model.settings.model_copy(update={"seen": "keep"})
        found[name] = data.share(model.fit(data.dataset, data.train, seed=seed))
    return found


def scenario(result: Result, name: str, seeds: int, quick: bool) -> None:
    """Compare the blocks of one scenario with their controls, in the world and in its twin."""
    lacking, blocks = SCENARIOS[name]
    chosen = dict(list(blocks.items())[:2]) if quick else blocks
    short = {"epochs": 1, "valid_users": 20} if quick else {}
    for place in (WORLD, TWIN):
        shares: dict[str, list[float]] = {}
        for seed in range(seeds):
            world = World(name, seed, **(QUICK if quick else SIZES))
            data = Served.of(world.twin(lacking) if place == TWIN else world, seed)
            for model, value in simple(data, seed).items():
                shares.setdefault(model, []).append(value)
            for model, (_, options) in {"plain": ("", {}), **chosen}.items():
                start = time.process_time()
                decoder = fitted(data, options | short, seed)
                shares.setdefault(model, []).append(data.share(decoder))
                result.rows.append({
                    "scenario": name, "place": place, "model": model, "seed": seed, "share of the best": shares[model][-1],
                    "parameters": sum(p.numel() for p in decoder.network.parameters()), "seconds": time.process_time() - start,
                })  # fmt: skip
                result.so_far()
        for model in ("popularity", "ItemKNN", "SASRec"):
            result.rows.append({"scenario": name, "place": place, "model": model, "share of the best": float(np.mean(shares[model]))})  # fmt: skip
        for model, control in [("plain", "popularity"), ("plain", "SASRec"), *((n, c) for n, (c, _) in chosen.items())]:
            value, low, high = interval(np.subtract(shares[model], shares[control]).tolist())
            result.rows.append({
                "scenario": name, "place": place, "model": f"{model} − {control}", "share of the best": value, "low": low, "high": high,
            })  # fmt: skip
            if quick:
                continue
            if (model, control, place) == ("plain", "popularity", WORLD):
                result.at_least(f"{name}: plain over popularity, lower end", low, 0.0)
            elif model != "plain" and place == TWIN:
                result.at_most(f"{name}'s twin: {model} over {control}, lower end", low, 0.0)
        result.so_far()


def measure(quick: bool) -> Result:
    """Run every scenario."""
    result = Result()
    for name in SCENARIOS:
        scenario(result, name, 2 if quick else int(os.environ.get("TAIJI_BENCHMARK_SEEDS", "4")), quick)
    if quick:
        result.at_least(
            "shares of the best", min(row["share of the best"] for row in result.rows if "seed" in row), 0.0
        )
    return result


if __name__ == "__main__":
    run(measure)
