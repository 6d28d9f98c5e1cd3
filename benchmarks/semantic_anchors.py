"""Does a ranker gain if its text encoder is trained with it (SARM) instead of frozen, and above all for rarely shown
items?

Data (column ``data``): the world ``live`` has rooms whose topics move in every slot of half an hour, and a description
of each room and slot. In its ``twin``, titles and descriptions are uninformative. In ``slow-rooms``, topics hardly
change in ten days (cosine of .9 with those of the first day). If TAIJI_TEST_DATA names the public data sets, there are
also the logs amazon-office and ml-latest-small, whose texts are titles and categories.

Arms (column ``arm``), encoders of the items' texts:

- ``sarm``: token embeddings that are trained with the ranker. They start as WordLlama's vectors, extended by the
  principal axes of the tokens' co-occurrences in the texts (``context``).
- ``embedder start``: SARM without these axes. ``random start``: SARM from random token embeddings. ``frozen start``:
  SARM whose token embeddings are not trained.
- ``frozen vector``: WordLlama's vector of the text through a trained network. ``codes``: embeddings of the codes that
  residual k-means gives these vectors.
- ``id only``: the embedding of the item's id instead of a text.

Equal for all: the network above the encoder, the rows, the training settings, and two configurations (learning rates of
the embeddings), one of which is chosen for each arm, seed and data set by the click AUC on validation rows.

Columns: ``auc``, mean over seeds of the click AUC on later test rows; ``sarm minus arm`` with ``low`` and ``high``,
paired by seed, with Student's 95 % interval. ``rows`` names the test rows: ``all``; by decile of the item's exposures
in training (*deciles 1-3* are rarely shown items); by quarter of the item's age. ``parameters`` are those outside
embedding tables.

Predictions, written down before the first run, when ``random start`` was the only form of SARM:

1. ``live``: SARM is above the frozen vector in deciles 1-3, and by more than in deciles 8-10.
2. ``live``: SARM is above ids alone on all rows; so is the frozen vector.
3. Twin: SARM is not above the frozen vector in deciles 1-3.
4. Logs: no prediction. We doubted prediction 1, because a description is two words out of 96, and a trained network
   over a frozen vector can distinguish all of them.

Predictions 1 and 2 failed, 3 held. The next ones, for ``embedder start``, were written down before its first run:

5. amazon-office: SARM is above the random start by more than .02 on all rows, and not shown to be below the frozen
   vector.
6. ml-latest-small: SARM is above the random start on all rows, and not shown to be below the frozen vector.
7. ``live``: SARM is above the frozen vector in deciles 1-3; we doubted this, but it is the paper's claim. Twin: SARM is
   not above it.

The next ones are for the present form of ``sarm``. Since then, all arms also read the inner products of the
candidate's and the history's encodings, taken in four parts, and their mean over the history includes ten additional
vectors of zeros. In a trial on seed 100, a logistic regression on the axes had .0077 more AUC in ``live`` than one on
WordLlama's vector, and .0067 more in deciles 1-3. Written down before the first run on the seeds of the benchmark:

8. ``live``: SARM is above the frozen vector in deciles 1-3. It is also checked whether its gain is larger there than in
   deciles 8-10; we doubted this, because topics move in every room, so the embedding of an id cannot learn them for any
   room.
9. Twin: SARM is not above the frozen vector. Logs: as in 5 and 6.

The last one, for ``slow-rooms``, was written down after two trials on seeds 100 and 101 (+.0052 and +.0121 in deciles
1-3, +.0044 and +.0068 in deciles 8-10), and before the first run on other seeds:

10. SARM is above the frozen vector in deciles 1-3, and by more than in deciles 8-10.

A *cell* is one arm on one data set with one seed. Finished cells are stored in $TAIJI_BENCHMARK_WORK, so that a stopped
run can continue, and several processes with different seeds can share the work: with ``ANCHORS_LATER=1`` a process
stops when its cells are finished, and a last process without it combines all cells. A full run has 252 cells with two
trainings each. Files in benchmarks/results: ``semantic_anchors_live.json``, ``…_twin.json``, ``…_slow.json`` and
``…_logs.json``, and the earlier form in ``semantic_anchors.json``.

    [ANCHORS_DEVICE=cuda] [ANCHORS_DATA="live twin slow-rooms amazon-office ml-latest-small"] [ANCHORS_SEEDS="0 1 2 3"] [ANCHORS_ARMS="sarm,id only"] [ANCHORS_LATER=1]
        python -m benchmarks.semantic_anchors [--quick] [--json FILE]
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
"""Settings of the mechanism ``live`` with which topics hardly change."""
PUBLIC = {"amazon-office": "amazon:", "ml-latest-small": ""}
"""Public logs, with the prefix of their folder in the name of the source."""
WORLD: dict[str, int] = {"users": 1000, "items": 600, "days": 10}
QUICK_WORLD: dict[str, int] = {"users": 40, "items": 60, "days": 4}
SEEDS, PUBLIC_SEEDS, QUICK_SEEDS = 8, 6, 2
"""Numbers of seeds of a world, of a public log (seeds of the training), and of a quick run. Sizes and learning rates
were chosen on seed 100, which is not among them."""
CONFIGURATIONS: tuple[dict[str, float], ...] = ({"embedding_rate": 0.05}, {"embedding_rate": 0.005})
"""Learning rates of the embeddings. All other parameters have a rate of 2e-3: on seed 100, 6e-3 was worse for all arms
except one. In ``live``, the lower rate of the embeddings is better for every arm."""
SHARED: dict[str, Any] = {
    **TRAINING, "learning_rate": 2e-3, "min_steps": 200, "batch": 512, "patience": 4, "checks": 4, "pair_fields": (), "device": os.environ.get("ANCHORS_DEVICE", "cpu"), "hidden": (64, 32),
    "history": 20, "bins": 3, "tasks": ("click",), "text_width": 32, "text_layers": 1,
}  # fmt: skip
QUICK: dict[str, Any] = {"min_steps": 4, "hidden": (16,), "text_width": 8}
CODES = ResidualKMeansSettings(levels=3, size=32)
EMBEDDER = "wordllama"
CONTEXT = 16
"""Number of axes of co-occurrences in the arms that use them."""
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
    """Trained network over frozen vectors. The only token of a text is the index of its vector."""

    vectors: torch.Tensor

    def __init__(self, vectors: torch.Tensor, width: int, item: int) -> None:
        super().__init__()
        self.register_buffer("vectors", vectors, persistent=False)
        self.halves = TextHalves(vectors.shape[1], width, item)

    def forward(self, general: torch.Tensor, domain: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """Return (N, 2 * width) for the indices (N, 1) of vectors."""
        return self.halves(self.vectors[general[:, 0]], items, general[:, :1] != 0)  # type: ignore[no-any-return]


class CodeEncoder(nn.Module):
    """Encoder that sums the embeddings of a text's codes, one token per level."""

    def __init__(self, codes: int, width: int, item: int) -> None:
        super().__init__()
        self.table = nn.Embedding(codes, width)
        nn.init.normal_(self.table.weight, std=0.1)
        self.halves = TextHalves(width, width, item)

    def forward(self, general: torch.Tensor, domain: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """Return (N, 2 * width) of codes (N, L)."""
        return self.halves(self.table(general).sum(dim=1), items, general[:, :1] != 0)  # type: ignore[no-any-return]


class IdRanker(SemanticAnchorsRanker):
    """Ranker that reads item ids instead of texts."""

    def make_network(self) -> SemanticAnchorsNetwork:
        """Return the network with an encoder that does not read texts."""
        network = super().make_network()
        network.encoder = IdEncoder(self.settings.text_width, self.settings.dimension)
        return network


class VectorRanker(SemanticAnchorsRanker):
    """Ranker that reads frozen vectors of the texts."""

    vectors: Array

    def read(self, dataset: Dataset, text: AnchorText, versions: TextVersions) -> AnchorTexts:
        """Return the index of each text among the distinct texts as its only token."""
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
    """Ranker that reads codes of the frozen vectors. The coder is fitted to the texts before the time ``until``."""

    until = 0
    codes = 0

    def read(self, dataset: Dataset, text: AnchorText, versions: TextVersions) -> AnchorTexts:
        """Return the codes of each text as its tokens."""
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
    """Return the index (1 + n,) of each text among the m distinct ones (0: no text), and their standardised vectors (1
    + m, d)."""
    distinct = {name: 1 + place for place, name in enumerate(dict.fromkeys(versions.texts))}
    place = np.array([0, *(distinct[name] for name in versions.texts)])
    vectors = embedded(EMBEDDER, ["", *distinct]).astype(np.float32)
    known = vectors[1:]
    vectors[1:] = (known - known.mean(axis=0)) / np.maximum(known.std(axis=0), 1e-6)
    return place, vectors


class RandomStart(SemanticAnchorsRanker):
    """SARM whose token embeddings start from random values."""


class FrozenTokens(StartedEncoder):
    """Encoder with the path from the frozen vectors alone, without trained token embeddings."""

    def forward(self, general: torch.Tensor, domain: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """Return (N, 2 * width) of tokens (N, T)."""
        return self.started(general, items.new_zeros(len(items), self.width), items)


class FrozenStart(SemanticAnchorsRanker):
    """SARM whose token embeddings are not trained."""

    def make_network(self) -> SemanticAnchorsNetwork:
        """Return the network with the encoder without trained token embeddings."""
        network = super().make_network()
        texts, s = self._texts, self.settings
        assert texts.start is not None
        sizes = (texts.general_tokens, texts.domain_tokens, s.text_width, s.text_layers, s.dimension)
        network.encoder = FrozenTokens(*sizes, texts.start, s.pace)
        return network


class EmbedderStart(SemanticAnchorsRanker):
    """SARM that starts from the embedder's vectors alone, without the axes of co-occurrences."""


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
    """Check on the log of a tiny world that the encodings that the ranker stores equal fresh ones exactly, and that
    serving does not call the encoder."""
    log = data(TWIN, 0, True)
    ranker = SemanticAnchorsRanker(SemanticAnchorsRanker.Settings(**{**SHARED, **QUICK, "texts": "room_text"}))
    ranker.fit(log.dataset, log.train, valid=log.valid, seed=0)
    result.at_most("largest difference of a stored encoding from a fresh one", float(ranker.staleness().max()), 0.0)
    asked: list[int] = []
    handle = ranker.network.encoder.register_forward_hook(lambda module, given, out: asked.append(len(out)))
    ranker.predict(log.test)
    handle.remove()
    result.at_most("texts that serving encodes", sum(asked), 0)


@lru_cache(maxsize=1)
def data(place: str, seed: int, quick: bool) -> RankingLog:
    """Return the log of a data set, split by time. A public log does not depend on the seed, which changes only the
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
    """Return the results of one arm on one data set with one seed, in the chosen configuration. A finished cell is read
    from its file."""
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
    """Return the click AUC of the test rows: of all, by decile of the item's exposures in training, and by quarter of
    its age."""
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
    """Add a row for each arm and group of test rows: the mean over seeds, and SARM minus the arm with its interval."""
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
    """Return the AUC of SARM minus that of an arm on a group of test rows, one value per seed."""
    return [seed["sarm"]["metrics"][metric] - seed[name]["metrics"][metric] for seed in cells]


def judge(result: Result, found: Mapping[str, list[dict[str, Any]]]) -> None:
    """Check the predictions on the data sets that were run with at least two seeds."""
    for place in (LIVE, SLOW):
        if len(cells := found.get(place, [])) > 1:
            low, high = gains(cells, "frozen vector", LOW), gains(cells, "frozen vector", HIGH)
            result.at_least(f"{place}: low end of SARM over the frozen vector, {LOW}", interval(low)[1], 1e-9)
            more = interval(np.subtract(low, high).tolist())
            result.at_least(
                f"{place}: low end of SARM's gain over the frozen vector in {LOW} minus that in {HIGH}", more[1], 1e-9
            )
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
