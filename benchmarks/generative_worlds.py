"""Does each block of the generative decoder find better items in a world with known truth, and not in its twin?

The metric, ``share of the best``, is the true expected reward of the ten items that a retriever ranks first for a
request, divided by the reward of the ten best items. An item's reward is the expected reward of showing it alone, so
random clicks add no noise. Each scenario has a twin without the mechanism from which its blocks could gain (negative
control):

- ``short-video``: users have long-term and short-term tastes; in the twin there are none, only quality, which is the
  same for everybody;
- ``mall``: users have one taste for the whole app and a further one for each surface (part of the app); in the twin,
  they have only the former. Items of other surfaces than the request's are excluded from the lists of all arms;
- ``live``: the topics of rooms (live streams) move while the rooms are on the air; in the twin they stay. Rooms that
  are off the air are excluded for all arms.

The log comes from a policy that shows random items. All arms of a scenario are trained on the first two thirds of the
log. They get the same requests, up to 600 from the last third, at the times of the log. The codes are residual k-means
of title vectors, the same for all arms, except in one comparison in ``live``: *codes of the moment* are made from the
last descriptions of a room before an interaction or a request, and *codes of titles* are their control. Both consist of
one code with 16 values, and items with equal codes share a leaf. A block and its control have the same training
settings. The control of every other block is the plain decoder (``plain``), but thinking steps are compared with as many filler
steps.

Checks: the plain decoder beats popularity in the worlds, codes of the moment beat codes of titles in ``live``, and no
block has an advantage over its control in a twin. The effects of the other blocks in the worlds are only reported.

Rows: one per ``scenario``, ``place`` (world or twin), ``model`` and ``seed``, with the number of ``parameters`` of
decoders and the CPU ``seconds``; then one per comparison (``MODEL − CONTROL``), with the mean difference over seeds and
Student's 95 % interval from ``low`` to ``high``. A run of ``short-video`` and ``mall`` with three seeds takes 70
minutes of CPU time on one core, and one of ``live`` with four seeds 22 minutes (``generative_live.json``).

    python -m benchmarks.generative_worlds [--quick] [--json benchmarks/results/generative_worlds.json]

``TAIJI_BENCHMARK_SEEDS`` is the number of seeds (default 4); ``TAIJI_BENCHMARK_WORLDS`` and ``TAIJI_BENCHMARK_BLOCKS``
name scenarios and blocks, separated by commas (default: all). Finished rows are kept in ``$TAIJI_BENCHMARK_WORK``, so
that a killed run can be resumed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike

from benchmarks.components.comparison import TWIN, WORLD, interval
from benchmarks.generative import BLOCKS, SKIPS, named_blocks
from benchmarks.harness import Result, run
from benchmarks.rationale_data import work_folder
from taiji.core.artifacts import read_json, value_hash, write_json
from taiji.core.component import NO_ITEM, Requests
from taiji.data.availability import Availability
from taiji.data.dataset import Dataset
from taiji.language.embed import load_embedder
from taiji.models.codes.dynamic import DynamicCodes
from taiji.models.codes.residual_kmeans import ResidualKMeans
from taiji.models.retrieval.code_decoder import CodeDecoder
from taiji.models.retrieval.code_settings import CodeDecoderSettings
from taiji.models.retrieval.item_knn import ItemKNN
from taiji.models.retrieval.popularity import Popularity
from taiji.models.retrieval.retriever import CatalogueRetriever
from taiji.models.retrieval.sasrec import SASRec
from taiji.world import World
from taiji.world.mechanisms.live import Live
from taiji.world.world_time import to_days, to_micros

FIRST, DEPTH = 10, 120
"""Number of items of a list that count, and number of items to retrieve before those of other surfaces are left out.
The latter is large enough even for the smallest surface."""
TRAINED, REQUESTS = 0.67, 600
"""Share of the log's time before the test, and largest number of requests in the test."""
PLAIN: dict[str, Any] = {
    "width": 32, "history": 20, "dropout": 0.2, "batch": 32, "learning_rate": 3e-3, "epochs": 24, "check_every": 3,
    "patience": 2, "valid_users": 300, "beam": 40, "seen": "keep", "device": "cpu", "coder_settings": {"levels": 2, "size": 8},
}  # fmt: skip
"""Settings of the plain decoder."""
MOMENT = "codes of the moment"
CODES: dict[str, Any] = {"levels": 1, "size": 16}
"""Coder settings for codes of the moment and for codes of titles."""
POOLED = 8
"""Number of latest slots (half hours) whose descriptions are averaged for the code of the moment."""
SIZES: dict[str, Any] = {"users": 1000, "items": 400, "days": 15}
QUICK: dict[str, Any] = {"users": 150, "items": 80, "days": 5}


@dataclass(frozen=True)
class Trial:
    """Blocks that are compared in one scenario.

    Attributes:
        twin: mechanism, or part of one, that the twin lacks.
        blocks: control of each block, and its changes of the settings, by name.
        sizes: sizes of the world that differ from :data:`SIZES`.
        training: settings of every decoder that differ from :data:`PLAIN`.
    """

    twin: str
    blocks: Mapping[str, tuple[str, Mapping[str, Any]]]
    sizes: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)


SCENARIOS = {
    "short-video": Trial("taste", BLOCKS | SKIPS),
    "mall": Trial("surfaces.taste", {"scenario prompts": ("plain", {"scenario": "scenario"})}),
    "live": Trial(
        "live",
        {name: BLOCKS[name] for name in ("query-key norm", "gate", "sequential heads", "time")}
        | {
            "codes of titles": ("plain", {"collisions": "list", "coder_settings": CODES}),
            MOMENT: ("codes of titles", {"collisions": "list", "codes": MOMENT}),
        },
        sizes={"users": 2000},
        training={"history": 50, "batch": 128, "layers": 1, "heads": 1, "learning_rate": 1e-2},  # chosen on seed 100
    ),
}


@dataclass(frozen=True)
class Served:
    """Data from a world.

    Attributes:
        dataset: the whole log.
        train: events before the test.
        requests: requests of the test.
        worth: (B, n_items) true expected reward of each item for each request; NaN if it may not be shown.
        vectors: vectors of the titles.
        available: availability of the items.
        moving: codes of the moment, only in a world with live rooms.
    """

    dataset: Dataset
    train: pl.DataFrame
    requests: Requests
    worth: np.ndarray
    vectors: np.ndarray
    available: Availability
    moving: DynamicCodes | None

    @classmethod
    def of(cls, world: World, seed: int) -> Served:
        """Return the log of a world under the default policy, which shows random items, and requests drawn from the
        last third of the log's time."""
        dataset = Dataset.from_tables(world.log())
        events, when = dataset.events, dataset.events["time"].to_numpy()
        end = int(when[0] + TRAINED * (when[-1] - when[0]))
        asked = events.filter(pl.col("time") >= end).unique(["user", "time"], keep="first", maintain_order=True)
        asked = asked[np.sort(np.random.default_rng(seed).permutation(len(asked))[:REQUESTS])]
        context = {name: asked[name].to_numpy() for name in dataset.event_columns.context}
        requests = Requests(asked["user"].to_numpy().astype(np.int64), asked["time"].to_numpy(), context)
        vectors = load_embedder("wordllama").encode([title or "" for title in dataset.items["title"]])
        available, moving = Availability.of(dataset), None
        if live := world.find(Live):
            slots = 1 + int(to_days(when[-1:])[0] / world.slot_days)
            on_air = np.array([live.available(slot) for slot in range(slots)])
            available = OnAir(available.first, available.end, on_air, world.slot_days)
            moving = codes_of_the_moment(live, on_air, round(TRAINED * slots), world.slot_days)
        values = worth(world, dataset, requests, available)
        return cls(dataset, events.filter(pl.col("time") < end), requests, values, vectors, available, moving)

    @property
    def best(self) -> float:
        """Reward of the best lists, summed over the requests."""
        return float(-np.sort(-np.nan_to_num(self.worth), axis=1)[:, :FIRST].sum())

    def chance(self) -> float:
        """Return the expected reward of lists of random items, divided by that of the best lists."""
        length = np.minimum(np.isfinite(self.worth).sum(axis=1), FIRST)
        return float((np.nanmean(self.worth, axis=1) * length).sum() / self.best)

    def share(self, retriever: CatalogueRetriever) -> float:
        """Return the expected reward of a fitted retriever's lists, divided by that of the best lists."""
        depth = DEPTH if "surface" in self.dataset.items.columns else FIRST
        found = retriever.retrieve(self.requests, min(depth, self.dataset.n_items)).items
        values = np.where(found == NO_ITEM, np.nan, np.take_along_axis(self.worth, np.maximum(found, 0), axis=1))
        first = np.argsort(np.isnan(values), axis=1, kind="stable")[:, :FIRST]
        taken = np.nan_to_num(np.take_along_axis(values, first, axis=1))
        return float(taken.sum() / self.best)


@dataclass(frozen=True, eq=False)
class OnAir(Availability):
    """Availability of rooms: only in the slots in which they are on the air.

    Attributes:
        slots: (S, n_items), True where an item is on the air.
        slot_days: length of a slot in days.
    """

    slots: np.ndarray
    slot_days: float

    bounded = True

    def at(self, times: ArrayLike) -> np.ndarray:
        """Return a mask (B, n_items) of the items that may be shown at each time (B,)."""
        slot = (to_days(np.asarray(times)) / self.slot_days).astype(np.int64)
        return super().at(times) & self.slots[np.clip(slot, 0, len(self.slots) - 1)]


def codes_of_the_moment(live: Live, on_air: np.ndarray, trained: int, slot_days: float) -> DynamicCodes:
    """Return the codes of the rooms' descriptions in every slot. The coder is fitted to the first ``trained`` slots."""
    embedder, items = load_embedder("wordllama"), np.arange(on_air.shape[1])
    told = np.stack([embedder.encode(live.descriptions(items, slot)) for slot in range(len(on_air))])
    told *= on_air[:, :, None]
    rooms = [np.flatnonzero(there) for there in on_air]
    vectors = [told[max(slot + 1 - POOLED, 0) : slot + 1, there].mean(axis=0) for slot, there in enumerate(rooms)]
    vectors = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in vectors]
    coder = ResidualKMeans(ResidualKMeans.Settings(**CODES))
    codes = DynamicCodes()
    codes.use(coder.fit(np.concatenate(vectors[:trained])))
    for start, there, rows in zip(to_micros(np.arange(len(rooms)) * slot_days), rooms, vectors):
        codes.assign(int(start), there, rows)
    return codes


def worth(world: World, dataset: Dataset, requests: Requests, available: Availability) -> np.ndarray:
    """Return the expected reward (B, n_items) of each item at the time of each request, NaN if it may not be shown."""
    users = dataset.users["user_id"].to_numpy()[requests.user]
    items, times = dataset.items["item_id"].to_numpy(), np.repeat(requests.time, dataset.n_items)
    values = world.truth.value(np.repeat(users, len(items)), np.tile(items, len(users)), times)
    shown = available.at(requests.time)
    if "surface" in dataset.items.columns:
        shown = shown & (requests.columns["scenario"][:, None] == dataset.items["surface"].to_numpy()[None])
    return np.where(shown, values.reshape(shown.shape), np.nan)


SIMPLE: dict[str, Callable[[], CatalogueRetriever]] = {
    "popularity": Popularity,
    "ItemKNN": ItemKNN,
    "SASRec": lambda: SASRec(SASRec.Settings(width=32, epochs=24, device="cpu")),
}
"""Retrievers that are not generative."""


def made(name: str, options: Mapping[str, Any], data: Served, seed: int) -> CatalogueRetriever:
    """Return a fitted retriever: one of :data:`SIMPLE`, or the decoder with these changes of its settings."""
    if name in SIMPLE:
        model = SIMPLE[name]()
        model.settings = model.settings.model_copy(update={"seen": "keep"})
    else:
        settings = {**PLAIN, **options}
        codes = data.moving if settings.pop("codes", None) == MOMENT else None
        model = CodeDecoder(CodeDecoderSettings.model_validate(settings), codes=codes, vectors=data.vectors)
    model.fit(data.dataset, data.train, seed=seed)
    model.availability = data.available
    return model


@lru_cache(maxsize=1)
def served(scenario: str, place: str, seed: int, quick: bool) -> Served:
    """Return the data of a world or its twin."""
    world = World(scenario, seed, **(QUICK if quick else {**SIZES, **SCENARIOS[scenario].sizes}))
    return Served.of(world.twin(SCENARIOS[scenario].twin) if place == TWIN else world, seed)


def cell(
    folder: Path, scenario: str, place: str, seed: int, name: str, options: Mapping[str, Any], quick: bool
) -> dict[str, Any]:
    """Return the row of one retriever in one world or twin. A row that is already in the folder is read from there."""
    file = folder / f"{value_hash([scenario, place, seed, name, options])[:16]}.json"
    if file.is_file():
        return read_json(file)
    data, start = served(scenario, place, seed, quick), time.process_time()
    model = made(name, options, data, seed)
    row = {
        "scenario": scenario, "place": place, "model": name, "seed": seed, "share of the best": data.share(model),
        "parameters": sum(p.numel() for p in model.network.parameters()) if isinstance(model, CodeDecoder) else None,
        "seconds": time.process_time() - start,
    }  # fmt: skip
    write_json(file, row)
    return row


def scenario(result: Result, folder: Path, name: str, seeds: int, quick: bool) -> None:
    """Compare the blocks of one scenario with their controls, in the world and in its twin."""
    trial = SCENARIOS[name]
    wanted = named_blocks(trial.blocks)[: 2 if quick else None]
    blocks = {block: trial.blocks[block] for block in trial.blocks if block in wanted}
    arms: dict[str, Mapping[str, Any]] = {model: {} for model in (*SIMPLE, "plain")}
    arms |= {model: options for model, (_, options) in blocks.items()}
    found: dict[tuple[str, str], list[float]] = {}
    for seed in range(seeds):
        for place in (WORLD, TWIN):
            for model, options in arms.items():
                short = {"epochs": 1, "valid_users": 20} if quick else {}
                row = cell(folder, name, place, seed, model, {**trial.training, **options, **short}, quick)
                found.setdefault((place, model), []).append(row["share of the best"])
                result.rows.append(row)
                result.so_far()
    compared = [
        ("plain", "popularity"),
        ("plain", "SASRec"),
        *((model, control) for model, (control, _) in blocks.items()),
    ]
    for place in (WORLD, TWIN):
        for model, control in compared:
            value, low, high = interval(np.subtract(found[place, model], found[place, control]).tolist())
            row = {"scenario": name, "place": place, "model": f"{model} − {control}", "share of the best": value}
            result.rows.append({**row, "low": low, "high": high})
            if quick:
                continue
            if (model, place) == (MOMENT, WORLD):
                result.at_least(f"{name}: {model} over {control}, lower end", low, 0.0)
            if (model, control, place) == ("plain", "popularity", WORLD):
                result.at_least(f"{name}: plain over popularity, lower end", low, 0.0)
            elif model != "plain" and place == TWIN:
                result.at_most(f"{name}'s twin: {model} over {control}, lower end", low, 0.0)
    result.so_far()


def measure(quick: bool) -> Result:
    """Compute the missing rows of the chosen scenarios, and add all rows, comparisons and checks."""
    result, seeds = Result(), 2 if quick else int(os.environ.get("TAIJI_BENCHMARK_SEEDS", "4"))
    sizes = {name: dict(trial.sizes) for name, trial in SCENARIOS.items()}
    folder = work_folder() / f"generative-worlds-{value_hash([PLAIN, SIZES, sizes, CODES, POOLED, quick])[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    for name in os.environ.get("TAIJI_BENCHMARK_WORLDS", ",".join(SCENARIOS)).split(","):
        scenario(result, folder, name, seeds, quick)
    if quick:  # checked only in the world whose rewards are clicks, which popularity counts
        popular = [
            row["share of the best"] for row in result.rows if row["place"] == WORLD and row["model"] == "popularity"
        ]
        chance = np.mean([served("short-video", WORLD, seed, True).chance() for seed in range(seeds)])
        result.at_least("share of popular items over that of random ones", np.mean(popular[:seeds]) / chance, 1.05)
    return result


if __name__ == "__main__":
    run(measure)
