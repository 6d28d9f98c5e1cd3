"""Do texts trained with the ranker (SARM) rank better than their frozen vectors for items with few exposures?

The world ``live`` has rooms whose topic moves in every slot, with a description of each slot. In its twin, titles and
descriptions are uninformative. In ``slow-rooms``, the same world with topics that hardly change in ten days (cosine of
.9 with those of the first day), ids can learn the topics. If TAIJI_TEST_DATA names the public data sets, there are also
the logs amazon-office and ml-latest-small, where the texts are titles and categories.

All arms have the same network, with different encoders of the items: ids alone (a projection of the item's embedding);
frozen vector (WordLlama through a trained network); codes (residual k-means of these vectors, embedded); SARM, whose
tokens are initialised with WordLlama's vectors and with the axes of their co-occurrences in the texts; and SARM without
the co-occurrences (embedder start), with a random start, and with untrained tokens (frozen start). Each arm has the
same configurations, chosen for each seed and place by its click AUC on validation rows. Metric: AUC of the click on
later rows: on all rows, by decile of the item's exposures in training, and by the item's age.

Predictions, written down before the first run:

1. ``live``: SARM is above the frozen vector in the three deciles of least exposure, and by more than in the three of
   most.
2. ``live``: SARM is above ids alone on all rows; the frozen vector is above them too.
3. Twin: SARM is not above the frozen vector in the three lowest deciles.
4. Logs: no prediction. Prediction 1 was doubted, because descriptions are two words of 96, and a trained network over a
   frozen vector can distinguish all of them.

These predictions concerned the random start, and failed except for the third. The next ones concern SARM with the
embedder's start, and were written down before its first run:

5. amazon-office: SARM is above the random start by more than .02 on all rows, and not shown to be below the frozen
   vector.
6. ml-latest-small: SARM is above the random start on all rows, and not shown to be below the frozen vector.
7. ``live``: SARM is above the frozen vector in the three deciles of least exposure. This was doubted, but it is what
   the paper claims, so it is checked. Twin: SARM is not above.

The next predictions concern SARM with co-occurrences. All arms now have inner products of four parts of h_CLS and
h_UIN, and a mean over the history that includes ten zero vectors. On the trial seeds, the axes alone, without the
network, were .0077 above WordLlama's vector in ``live`` and .0067 in the lowest deciles. Before the first run on other
seeds:

8. ``live``: SARM is above the frozen vector in the three deciles of least exposure. It is also checked whether its gain
   is larger there than in the three deciles of most exposure; this was doubted, because topics move in every room, so
   ids cannot learn them anywhere.
9. Twin: SARM is not above. Logs: as in 5 and 6.

For ``slow-rooms``, after two trials on seeds 100 and 101 (+.0052 and +.0121 in the lowest deciles, +.0044 and +.0068 in
the highest), before the first run on other seeds:

10. SARM is above the frozen vector in the three deciles of least exposure, and by more than in the three of most.

Finished cells are kept in $TAIJI_BENCHMARK_WORK, so that a killed run can be resumed; several processes may share them,
each with its own seeds.

    [ANCHORS_DEVICE=cuda] [ANCHORS_DATA="live twin slow-rooms amazon-office ml-latest-small"] [ANCHORS_SEEDS="0 1 2 3"] [ANCHORS_ARMS="sarm,id only"] [ANCHORS_LATER=1]
        python -m benchmarks.semantic_anchors [--quick] [--json FILE]

With ``ANCHORS_LATER``, a process stops when its cells are finished; a last process without it combines all cells.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.components.comparison import interval
from benchmarks.components.ranking_worlds import TRAINING, RankingLog, areas, dense_parameters, parts_in_time
from benchmarks.harness import Result, public_data, run
from benchmarks.rationale_data import work_folder
from taiji.core.artifacts import read_json, value_hash, write_json
from taiji.data.dataset import Dataset
from taiji.data.sources import load_source
from taiji.data.text_versions import TextVersions
from taiji.language.item_vectors import embedded
from taiji.metrics.ranking_metrics import auc
from taiji.models.codes.residual_kmeans import ResidualKMeans, ResidualKMeansSettings
from taiji.models.ranking.semantic_anchors import AnchorText, SemanticAnchorsNetwork, SemanticAnchorsRanker
from taiji.nn.semantic_encoder import AnchorTexts, StartedEncoder, TextHalves
from taiji.testing import exposures_of
from taiji.world import World

Array = NDArray[Any]
LIVE, TWIN, SLOW = "live", "twin", "slow-rooms"
SLOW_TOPICS = {"turn": 0.1, "drift": 0.1}
"""Settings of the mechanism ``live`` in which rooms hardly change."""
PUBLIC = {"amazon-office": "amazon:", "ml-latest-small": ""}
"""Logs, and the prefix of the folder in the name of the source."""
WORLD: dict[str, int] = {"users": 1000, "items": 600, "days": 10}
QUICK_WORLD: dict[str, int] = {"users": 40, "items": 60, "days": 4}
SEEDS, PUBLIC_SEEDS, QUICK_SEEDS = 8, 6, 2
"""Number of seeds for worlds, for the training on a public log, and for a quick run. Sizes and rates were tried on seed
100, which is not among them."""
CONFIGURATIONS: tuple[dict[str, float], ...] = ({"embedding_rate": 0.05}, {"embedding_rate": 0.005})
"""On seed 100, a general learning rate of 6e-3 was worse than 2e-3 for all arms except one. In ``live``, the lower rate
of the embeddings is better for every arm."""
SHARED: dict[str, Any] = {
    **TRAINING, "learning_rate": 2e-3, "min_steps": 200, "batch": 512, "patience": 4, "checks": 4, "pair_fields": (), "device": os.environ.get("ANCHORS_DEVICE", "cpu"), "hidden": (64, 32),
    "history": 20, "bins": 3, "tasks": ("click",), "text_width": 32, "text_layers": 1,
}  # fmt: skip
QUICK: dict[str, Any] = {"min_steps": 4, "hidden": (16,), "text_width": 8}
CODES = ResidualKMeansSettings(levels=3, size=32)
EMBEDDER = "wordllama"
CONTEXT = 16
"""Number of co-occurrence axes in the arms that use them."""
LOW, HIGH = "deciles 1-3 of exposure", "deciles 8-10 of exposure"


class IdEncoder(nn.Module):
    """Encoder that uses the item's embedding instead of its text."""

    def __init__(self, width: int, item: int) -> None:
        super().__init__()
        self.halves = TextHalves(item, width, item)

    def forward(self, general: torch.Tensor, domain: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """Return (N, 2 * width); the two text arguments (N, T) are not read."""
        return self.halves(items, items, general[:, :1] != 0)  # type: ignore[no-any-return]


class VectorEncoder(nn.Module):
    """Trained network over frozen vectors; a text's only token is its index among the vectors."""

    vectors: torch.Tensor

    def __init__(self, vectors: torch.Tensor, width: int, item: int) -> None:
        super().__init__()
        self.register_buffer("vectors", vectors, persistent=False)
        self.halves = TextHalves(vectors.shape[1], width, item)

    def forward(self, general: torch.Tensor, domain: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """Return (N, 2 * width) for the indices (N, 1) of vectors."""
        return self.halves(self.vectors[general[:, 0]], items, general[:, :1] != 0)  # type: ignore[no-any-return]


class CodeEncoder(nn.Module):
    """Encoder that embeds codes, one token per level."""

    def __init__(self, codes: int, width: int, item: int) -> None:
        super().__init__()
        self.table = nn.Embedding(codes, width)
        nn.init.normal_(self.table.weight, std=0.1)
        self.halves = TextHalves(width, width, item)

    def forward(self, general: torch.Tensor, domain: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """Return (N, 2 * width) of codes (N, L)."""
        return self.halves(self.table(general).sum(dim=1), items, general[:, :1] != 0)  # type: ignore[no-any-return]


class IdRanker(SemanticAnchorsRanker):
    """Ranker that reads ids instead of texts."""

    def make_network(self) -> SemanticAnchorsNetwork:
        """Return the network with the encoder that reads no text."""
        network = super().make_network()
        network.encoder = IdEncoder(self.settings.text_width, self.settings.dimension)
        return network


class VectorRanker(SemanticAnchorsRanker):
    """Ranker that reads frozen vectors of the texts."""

    vectors: Array

    def read(self, dataset: Dataset, text: AnchorText, versions: TextVersions) -> AnchorTexts:
        """Return the index of each text among the distinct ones."""
        place, self.vectors = vectors_of(versions)
        tokens = torch.from_numpy(place)[:, None]
        return replace(super().read(dataset, text, versions), general=tokens, domain=tokens)

    def make_network(self) -> SemanticAnchorsNetwork:
        """Return the network with the encoder of these vectors."""
        network = super().make_network()
        vectors = torch.from_numpy(self.vectors)
        network.encoder = VectorEncoder(vectors, self.settings.text_width, self.settings.dimension)
        return network


class CodeRanker(SemanticAnchorsRanker):
    """Ranker that reads codes of the frozen vectors; the coder is learnt from the texts before ``until``."""

    until = 0
    codes = 0

    def read(self, dataset: Dataset, text: AnchorText, versions: TextVersions) -> AnchorTexts:
        """Return each text's codes."""
        place, vectors = vectors_of(versions)
        known = np.unique(place[1:][versions.since < self.until])
        size = min(CODES.size, max(2, len(known) // 4))
        coder = ResidualKMeans(CODES.model_copy(update={"size": size})).fit(vectors[known], seed=0)
        found = 1 + np.arange(CODES.levels) * size + coder.encode(vectors)
        self.codes = 1 + CODES.levels * size
        tokens = torch.from_numpy(np.where(place[:, None] > 0, found[place], 0).astype(np.int64))
        return replace(super().read(dataset, text, versions), general=tokens, domain=tokens)

    def make_network(self) -> SemanticAnchorsNetwork:
        """Return the network with the encoder of these codes."""
        network = super().make_network()
        network.encoder = CodeEncoder(self.codes, self.settings.text_width, self.settings.dimension)
        return network


def vectors_of(versions: TextVersions) -> tuple[Array, Array]:
    """Return each text's index (1 + n,) among the distinct ones, 0 for none, and their standardised vectors (1 + m,
    d)."""
    distinct = {name: 1 + place for place, name in enumerate(dict.fromkeys(versions.texts))}
    place = np.array([0, *(distinct[name] for name in versions.texts)])
    vectors = embedded(EMBEDDER, ["", *distinct]).astype(np.float32)
    known = vectors[1:]
    vectors[1:] = (known - known.mean(axis=0)) / np.maximum(known.std(axis=0), 1e-6)
    return place, vectors


class RandomStart(SemanticAnchorsRanker):
    """SARM whose token embeddings start from random values."""


class FrozenTokens(StartedEncoder):
    """Encoder in its initial state: no token is trained."""

    def forward(self, general: torch.Tensor, domain: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """Return (N, 2 * width) of tokens (N, T)."""
        return self.started(general, items.new_zeros(len(items), self.width), items)


class FrozenStart(SemanticAnchorsRanker):
    """SARM whose tokens are not trained: its own paths over the frozen vector."""

    def make_network(self) -> SemanticAnchorsNetwork:
        """Return the network with the encoder as it starts."""
        network = super().make_network()
        texts, s = self._texts, self.settings
        assert texts.start is not None
        sizes = (texts.general_tokens, texts.domain_tokens, s.text_width, s.text_layers, s.dimension)
        network.encoder = FrozenTokens(*sizes, texts.start, s.pace)
        return network


class EmbedderStart(SemanticAnchorsRanker):
    """SARM from the embedder's vectors alone, without the co-occurrences of the texts."""


ARMS: dict[str, type[SemanticAnchorsRanker]] = {
    "sarm": SemanticAnchorsRanker,
    "embedder start": EmbedderStart,
    "random start": RandomStart,
    "frozen start": FrozenStart,
    "frozen vector": VectorRanker,
    "codes": CodeRanker,
    "id only": IdRanker,
}


def measure(quick: bool) -> Result:
    """Run every cell, combine the cells, and check the predictions."""
    result = Result()
    exact(result)
    places = (
        f"{LIVE} {TWIN}" if quick else os.environ.get("ANCHORS_DATA", " ".join([LIVE, TWIN, SLOW, *PUBLIC]))
    ).split()
    seeds = [int(seed) for seed in os.environ.get("ANCHORS_SEEDS", "").split()]
    seeds = list(range(QUICK_SEEDS if quick else SEEDS)) if quick or not seeds else seeds
    arms = [name for name in os.environ.get("ANCHORS_ARMS", "").split(",") if name] or list(ARMS)
    folder = work_folder() / value_hash([SHARED, CONFIGURATIONS, WORLD, CONTEXT, quick])[:12]
    folder.mkdir(parents=True, exist_ok=True)
    public = Path(os.environ.get("TAIJI_TEST_DATA", ""))
    found: dict[str, list[dict[str, Any]]] = {}
    for place in [name for name in places if name not in PUBLIC or (public / name).is_dir()]:
        for seed in seeds[:PUBLIC_SEEDS] if place in PUBLIC else seeds:
            cells = {name: cell(folder, place, seed, name, quick) for name in arms}
            found.setdefault(place, []).append(cells)
    if os.environ.get("ANCHORS_LATER"):
        return result
    for place, seeds_of in found.items():
        tell(result, place, seeds_of)
    if not quick:
        judge(result, found)
    return result


def exact(result: Result) -> None:
    """Check on the log of a tiny world that the ranker's stored text encodings equal the encoder's output bit for bit,
    and that serving does not call the encoder."""
    log = data(TWIN, 0, True)
    ranker = SemanticAnchorsRanker(SemanticAnchorsRanker.Settings(**{**SHARED, **QUICK, "texts": "room_text"}))
    ranker.fit(log.dataset, log.train, valid=log.valid, seed=0)
    result.at_most("the bank off a fresh encoding, largest", float(ranker.staleness().max()), 0.0)
    asked: list[int] = []
    handle = ranker.network.encoder.register_forward_hook(lambda module, given, out: asked.append(len(out)))
    ranker.predict(log.test)
    handle.remove()
    result.at_most("texts that serving encodes", sum(asked), 0)


@lru_cache(maxsize=1)
def data(place: str, seed: int, quick: bool) -> RankingLog:
    """Return the log of a place, split by time. A public log is the same for every seed, which only changes the
    training."""
    if place in PUBLIC:
        folder = public_data() / place
        dataset = Dataset.from_tables(load_source(f"{PUBLIC[place]}{folder}"))
    else:
        world = World("live", seed, **(QUICK_WORLD if quick else WORLD))
        if place == SLOW:
            world = World(world.scenario, seed, mechanisms={**world.scenario.mechanisms, "live": SLOW_TOPICS})
        dataset = Dataset.from_tables((world.twin("content.text") if place == TWIN else world).log())
    return parts_in_time(dataset, exposures_of(dataset))


def cell(folder: Path, place: str, seed: int, name: str, quick: bool) -> dict[str, Any]:
    """Return the results of one arm on one log with its chosen configuration. Finished cells are read from files."""
    file = folder / f"{place}-{seed}-{name.replace(' ', '-')}.json"
    if file.is_file():
        return read_json(file)
    log, start = data(place, seed, quick), time.perf_counter()
    text: dict[str, Any] = {"texts": "", "tokens": 48} if place in PUBLIC else {"texts": "room_text", "tokens": 8}
    text["start"] = "random" if ARMS[name] is RandomStart else "wordllama"
    text["context"] = CONTEXT if ARMS[name] in (SemanticAnchorsRanker, FrozenStart) else 0
    tried = []
    for configuration in CONFIGURATIONS:
        ranker = ARMS[name](
            SemanticAnchorsRanker.Settings(**{**SHARED, **(QUICK if quick else {}), **text, **configuration})
        )
        if isinstance(ranker, CodeRanker):
            ranker.until = int(log.train["time"].max()) + 1  # type: ignore[arg-type]
        ranker.fit(log.dataset, log.train, valid=log.valid, seed=seed)
        tried.append((areas(ranker, log.valid, ["click"])["auc"], configuration, ranker))
    validation, configuration, ranker = max(tried, key=lambda one: one[0])
    metrics = slices(ranker, log)
    made = {
        "validation": validation, "configuration": configuration, "parameters": dense_parameters(ranker.network),
        "seconds": time.perf_counter() - start, "metrics": metrics,
    }  # fmt: skip
    write_json(file, made)
    told = "  ".join(f"{key} {metrics[key]:.4f}" for key in ("all", LOW, HIGH) if key in metrics)
    print(f"{place} seed {seed} {name}: {told}  ({made['seconds']:.0f} s)", file=sys.stderr, flush=True)
    return made


def slices(ranker: SemanticAnchorsRanker, log: RankingLog) -> dict[str, float]:
    """Return the click AUC of test rows: of all, by decile of the item's exposures in training, by quarter of its
    age."""
    label, scores = log.test["click"].to_numpy(), ranker.predict(log.test)["click"].to_numpy()
    item, times = log.test["item"].to_numpy(), log.test["time"].to_numpy()
    exposed = np.bincount(log.train["item"].to_numpy(), minlength=log.dataset.n_items)[item]
    events = log.dataset.events.group_by("item").agg(pl.col("time").min())
    first = np.zeros(log.dataset.n_items, dtype=np.int64)
    first[events["item"].to_numpy()] = events["time"].to_numpy()
    decile, quarter = share(exposed, item, 10), share(times - first[item], item, 4)
    groups = {"all": np.ones(len(label), dtype=bool), LOW: decile <= 3, HIGH: decile >= 8}
    groups |= {f"decile {number} of exposure": decile == number for number in range(1, 11)}
    groups |= {f"quarter {number} of age": quarter == number for number in range(1, 5)}
    return {name: auc(label[rows], scores[rows]) for name, rows in groups.items() if 0 < label[rows].sum() < rows.sum()}


def share(values: Array, ties: Array, parts: int) -> Array:
    """Return the quantile group of each row, 1 … parts, in ascending order of the values."""
    order = np.lexsort((ties, values))
    place = np.empty(len(values), dtype=np.int64)
    place[order] = np.arange(len(values))
    return 1 + place * parts // len(values)


def tell(result: Result, place: str, cells: list[dict[str, Any]]) -> None:
    """Add a row for each arm and slice: mean over seeds, and SARM's difference with its interval."""
    for name in cells[0]:
        for metric in cells[0][name]["metrics"]:
            there = [seed for seed in cells if all(metric in seed[arm]["metrics"] for arm in cells[0])]
            values = [seed[name]["metrics"][metric] for seed in there]
            row = {
                "data": place, "arm": name, "rows": metric, "auc": float(np.mean(values)) if values else float("nan"),
                "parameters": cells[0][name]["parameters"], "seeds": len(there),
            }  # fmt: skip
            if name != "sarm" and len(there) > 1:
                row["sarm minus arm"], row["low"], row["high"] = interval(gains(there, name, metric))
            result.rows.append(row)


def gains(cells: list[dict[str, Any]], name: str, metric: str) -> list[float]:
    """Return SARM's gain over an arm on some rows, one per seed."""
    return [seed["sarm"]["metrics"][metric] - seed[name]["metrics"][metric] for seed in cells]


def judge(result: Result, found: Mapping[str, list[dict[str, Any]]]) -> None:
    """Check the predictions on the places that were run with two seeds or more."""
    for place in (LIVE, SLOW):
        if len(cells := found.get(place, [])) > 1:
            low, high = gains(cells, "frozen vector", LOW), gains(cells, "frozen vector", HIGH)
            result.at_least(f"{place}: low end of SARM over the frozen vector, {LOW}", interval(low)[1], 1e-9)
            more = interval(np.subtract(low, high).tolist())
            result.at_least(f"{place}: low end of how much more it gains there than in {HIGH}", more[1], 1e-9)
    if len(cells := found.get(LIVE, [])) > 1:
        result.at_least(f"{LIVE}: low end of SARM over ids alone", interval(gains(cells, "id only", "all"))[1], 1e-9)
        frozen = [seed["frozen vector"]["metrics"]["all"] - seed["id only"]["metrics"]["all"] for seed in cells]
        result.at_least(f"{LIVE}: low end of the frozen vector over ids alone", interval(frozen)[1], 1e-9)
    for place, least in (("amazon-office", 0.02), ("ml-latest-small", 1e-9)):
        if len(cells := found.get(place, [])) > 1:
            random, vector = (interval(gains(cells, arm, "all")) for arm in ("random start", "frozen vector"))
            result.at_least(f"{place}: low end of SARM over the random start", random[1], least)
            result.at_least(f"{place}: high end of SARM over the frozen vector", vector[2], 0.0)
    if len(cells := found.get(TWIN, [])) > 1:
        none = interval(gains(cells, "frozen vector", LOW))
        result.at_most(f"{TWIN}: low end of SARM over the frozen vector, {LOW}", none[1], 0.0)


if __name__ == "__main__":
    run(measure)
