"""Does generative retrieval by item codes beat the usual retrievers, and what does each block of the decoder add?

Data. In Amazon Beauty and Toys (5-core, 2014; S3-Rec's files), the targets are each user's last items. The other logs
are split by time: Amazon Office (the public part of MiniOneRec's split), ml-latest-small, completejourney, and the
favourites, carts and purchases of Taobao, where purchases are the targets. All models of a log have the same training
interactions, requests and targets. They rank the whole catalogue without the items that the user has seen. Codes are
made by residual k-means: of title vectors (WordLlama) for Office, ml-latest-small and completejourney, and of item
factors of the training interactions for the other logs.

Models: popularity, item-kNN, co-occurrence, SASRec, the plain decoder (``plain``), TIGER's form of it (an encoder, one
token per code), and the plain decoder with one block at a time. A block is compared with its control by R@10 (recall of
the first ten items), which is averaged over seeds and then paired by user. The control is the plain decoder, except
that thinking steps are compared with as many filler steps (``filler``), and scenario prompts with prompts of behaviours
in random order. The number of parameters is reported. A check requires that the best decoder is not below SASRec.
Experts compute as much per token as the plain feed-forward layer, and have twice its weights. Two blocks need
information that few logs contain. *Skipped exposures*: completejourney has the products on promotion in the store of a
trip; ml-latest-small has only a sample of popular titles, so it is a negative control. *Scenario prompts* (Taobao): the
scenario is the behaviour, and requests are for purchases.

Further parts. ``speed``: our beam search and ``generate`` of transformers with ``prefix_allowed_tokens_fn`` decode the
same histories with the same weights and beam. ``churn``: items come and go while lists are decoded; no unavailable item
may be decoded. ``codings`` (on Office, where the targets are each user's last items): the plain decoder is trained on
codings with 24 bits each, and items with equal codes are either separated by a further level (``level``) or share a
leaf (``list``). ``large-beauty`` and ``large-toys``, not run by default: TIGER's form, about as large as TIGER, on
codes of SASRec's item vectors.

Columns: ``R@5``, ``R@10``, ``N@10`` (NDCG); ``warm R@10`` and ``cold R@10``, of targets with more than five and with at
most five training interactions; ``rows per second``, requests per CPU second; ``train seconds``, CPU time; ``epoch``,
the best one. Rows ``MODEL − CONTROL`` have differences with a 95 % interval from ``low`` to ``high``. Row ``speed``, in
elapsed time: our rate, that of ``generate``, their ratio, and the share of requests for which both give the same list.
Row ``churn``: the number of decoded items, and how many of them were unavailable. Rows of ``codings``: ``collisions by
target`` (the share of targets that share all codes with another item) and ``hit rate`` (R@10).

CPU time on one core: Office 4 h (3 seeds, 60 epochs), ml-latest-small 80 min (3 seeds, 30 epochs); a training of a
large part takes minutes on a GPU and hours on two cores. Results: ``benchmarks/results/generative.json`` (speed and
churn), ``generative_office.json``, ``_movies``, ``_taobao``, ``_completejourney`` and ``_large``, and ``codings.json``.

    python -m benchmarks.generative [--quick] [--json FILE]

Environment variables, lists separated by commas: ``TAIJI_BENCHMARK_PARTS`` (default
``speed,churn,beauty,toys,office,movies,codings``; also ``completejourney``, ``taobao`` and the large parts);
``TAIJI_BENCHMARK_SEEDS``, the number of seeds (default 3); ``TAIJI_BENCHMARK_EPOCHS``, the largest number of passes
(default 200); ``TAIJI_BENCHMARK_BLOCKS`` (default: all); ``TAIJI_BENCHMARK_COLLISIONS`` (default ``level,list``);
``TAIJI_BENCHMARK_SIZES``, layers x width of the large parts (default ``4x128``). A quick run has a synthetic circle of
items, and small forms of ``speed`` and ``churn``.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from benchmarks.components import item_codes
from benchmarks.components.comparison import interval
from benchmarks.generate_peer import PrefixDictionary, generate, tokens_of, twin
from benchmarks.harness import Result, in_turn, median_ratio, public_data, run
from benchmarks.multi_behaviour import TEST, asked, taobao
from benchmarks.sequential import FOLDERS, by_time, last_out
from benchmarks.sequential import SETTINGS as SASREC
from benchmarks.sequential_circle import circle
from taiji.core.component import Requests
from taiji.data import Dataset, load_source
from taiji.language.item_vectors import embedded
from taiji.metrics.bootstrap import Ratio
from taiji.metrics.intervals import compare
from taiji.metrics.list_metrics import Targets, hits, ndcg, recall
from taiji.models.codes.item_codes import ItemCodes
from taiji.models.codes.trie import CodeTrie, LiveTrie
from taiji.models.retrieval.code_decoder import CodeDecoder
from taiji.models.retrieval.code_network import BeamScorer, CodeNetwork, Past
from taiji.models.retrieval.code_settings import CodeDecoderSettings
from taiji.models.retrieval.cooccurrence import Cooccurrence
from taiji.models.retrieval.item_knn import ItemKNN
from taiji.models.retrieval.popularity import Popularity
from taiji.models.retrieval.retriever import CatalogueRetriever
from taiji.models.retrieval.sasrec import SASRec
from taiji.nn.beam_search import beam_search

EPOCHS = int(os.environ.get("TAIJI_BENCHMARK_EPOCHS", "200"))
PLAIN = CodeDecoderSettings(seen="drop", dropout=0.3, beam=50, epochs=EPOCHS)
"""Settings of the plain decoder."""
LARGE: dict[str, Any] = {
    "architecture": "encoder-decoder", "tokens": "codes", "heads": 4, "expansion": 8, "dropout": 0.1, "batch": 256,
    "valid_users": 3000, "patience": 8,
}  # fmt: skip
"""Settings of TIGER's form in the parts ``large-beauty`` and ``large-toys``."""
COLD = 5
"""Largest number of training interactions of a cold item."""
BLOCKS: dict[str, tuple[str, dict[str, Any]]] = {
    "TIGER's form": ("plain", {"architecture": "encoder-decoder", "tokens": "codes"}),
    "query-key norm": ("plain", {"query_key_norm": True}),
    "gate": ("plain", {"gate": True}),
    "router": ("plain", {"short": 5}),
    "bucket": ("plain", {"bucket": True}),
    "experts": ("plain", {"experts": 4, "chosen_experts": 2, "expansion": PLAIN.expansion // 2}),
    "sequential heads": ("plain", {"multi_token": True}),
    "filler": ("plain", {"thinking": "filler"}),
    "thinking": ("filler", {"thinking": "latent"}),
    "thinking with clusters": ("filler", {"thinking": "latent", "clusters": 16}),
    "compressor": ("plain", {"history": 20, "long_history": 30}),
    "time": ("plain", {"time": True}),
}
"""Control of each block, and its changes of the plain settings, by name."""
SKIPS = {"skipped exposures": ("plain", {"skip_weight": 0.3})}
OWN_BLOCKS: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {
    "movies": SKIPS,
    "completejourney": SKIPS,
    "taobao": {
        "shuffled prompts": ("plain", {"scenario": "shuffled"}),
        "scenario prompts": ("shuffled prompts", {"scenario": "behaviour"}),
    },
}
"""Further blocks by data set: they need information that the other data sets do not contain."""
TITLED = {
    "office": ("amazon", "amazon-office"),
    "movies": ("movielens", "ml-latest-small"),
    "completejourney": ("completejourney", ""),
}
"""Kind of source and folder of each data set with titles; these data sets are split by time."""
OWN: dict[str, dict[str, Any]] = {
    "movies": {"batch": 16, "history": 20},
    "completejourney": {"batch": 32},
    "taobao": {"history": 20},
}
"""Changes of :data:`PLAIN` by data set: small batches for few users, and short inputs for short histories."""
PUBLISHED = {"beauty": (0.0721, 0.0378), "toys": (0.0647, 0.0350)}
"""Recall@10 and NDCG@10 of TIGER with the same protocol, as published by the repository phonism/genrec."""


def seeds() -> range:
    """Return the seeds of a run."""
    return range(int(os.environ.get("TAIJI_BENCHMARK_SEEDS", "3")))


class Trial:
    """One data set, and the recall of each model and seed on it.

    Args:
        name: name of the data set.
        data: the data set.
        train, requests, targets: see :func:`benchmarks.sequential.last_out`.
        result: result to which rows are added.
        vectors: (n_items, d) vectors from which codes are made; None to use item factors of the training interactions.
    """

    def __init__(
        self,
        name: str,
        data: Dataset,
        train: pl.DataFrame,
        requests: Requests,
        targets: Targets,
        result: Result,
        vectors: np.ndarray | None = None,
    ) -> None:
        self.name, self.data, self.train, self.result = name, data, train, result
        self.requests, self.vectors = requests, vectors
        taken = np.bincount(train.filter(pl.col("click") == 1)["item"].to_numpy(), minlength=data.n_items)
        owner, cold = np.repeat(np.arange(len(targets)), targets.counts), taken[targets.items] <= COLD
        self.targets = {"all": targets}
        for part, rows in (("warm", ~cold), ("cold", cold)):
            self.targets[part] = Targets.of(owner[rows], targets.items[rows], len(targets))
        self.values: dict[str, list[dict[str, np.ndarray]]] = {}

    def add(self, model: str, fitted: CatalogueRetriever, seed: int, **facts: Any) -> dict[str, Any]:
        """Measure a fitted retriever, add its row to the result, and return the row."""
        start = time.process_time()
        found = fitted.retrieve(self.requests, 10).items
        seconds = time.process_time() - start
        hit, counts = hits(found, self.targets["all"]), self.targets["all"].counts
        taken = {part: recall(hits(found, targets), targets.counts, 10) for part, targets in self.targets.items()}
        self.values.setdefault(model, []).append(taken)
        row = {
            "data": self.name,
            "model": model,
            "seed": seed,
            "R@5": float(np.nanmean(recall(hit, counts, 5))),
            "R@10": _mean(taken["all"]),
            "N@10": float(np.nanmean(ndcg(hit, counts, 10))),
            "warm R@10": _mean(taken["warm"]),
            "cold R@10": _mean(taken["cold"]),
            "rows per second": len(self.requests) / max(seconds, 1e-9),
            **facts,
        }
        self.result.rows.append(row)
        self.result.so_far()
        return row

    def decoder(self, name: str, settings: CodeDecoderSettings, seed: int, *, curve: bool = False) -> dict[str, Any]:
        """Train and measure a decoder, and return its row. With ``curve``, it has the validation NDCG@10 by epoch."""
        start = time.process_time()
        model = CodeDecoder(settings, vectors=self.vectors).fit(self.data, self.train, seed=seed)
        checks = model.facts["checks"]
        best = max(checks, key=lambda check: check["ndcg"])
        return self.add(
            name,
            model,
            seed,
            parameters=sum(parameter.numel() for parameter in model.network.parameters()),
            epoch=best["epoch"],
            **({"curve": {check["epoch"]: check["ndcg"] for check in checks}} if curve else {}),
            **{"validation N@10": best["ndcg"], "train seconds": time.process_time() - start},
        )

    def against(self, name: str, control: str) -> None:
        """Add rows with the difference in R@10 between a model and its control, for all, warm and cold targets. The
        difference is paired by user, and recall is averaged over seeds first."""
        for part in self.targets:
            first, second = (np.mean([seed[part] for seed in self.values[model]], axis=0) for model in (name, control))
            if not np.isfinite(first).any():
                continue
            found = compare(Ratio.of_values(first), Ratio.of_values(second))
            entry = {key: found[key] for key in ("value", "low", "high")}  # type: ignore[literal-required]
            self.result.rows.append(
                {
                    "data": self.name,
                    "model": f"{name} − {control}",
                    "targets": part,
                    "R@10": entry.pop("value"),
                    **entry,
                }
            )
        self.result.so_far()

    def simple(self) -> None:
        """Measure the retrievers without a network."""
        models: list[CatalogueRetriever] = [Popularity(), ItemKNN(), Cooccurrence()]
        for model in models:
            model.settings = model.settings.model_copy(update={"seen": "drop"})
            self.add(type(model).__name__, model.fit(self.data, self.train), 0)

    def mean(self, model: str) -> float:
        """Return the mean R@10 of a model over requests and seeds."""
        return float(np.mean([_mean(seed["all"]) for seed in self.values[model]]))


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def chosen_blocks(part: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return the blocks that a run compares on a data set."""
    every = BLOCKS | OWN_BLOCKS.get(part, {})
    return {name: every[name] for name in named_blocks(every)}


def named_blocks(every: Iterable[str]) -> list[str]:
    """Return the names of the blocks in ``TAIJI_BENCHMARK_BLOCKS``, or of all blocks if it is not set."""
    named = os.environ.get("TAIJI_BENCHMARK_BLOCKS")
    return [*every] if named is None else [name.strip() for name in named.split(",") if name.strip()]


def last_out_trial(part: str, folder: Path, result: Result) -> Trial:
    """Return the trial of Beauty or Toys, whose targets are the users' last items."""
    data = Dataset.from_tables(load_source(f"sequences:{folder / FOLDERS[part]}"))
    return Trial(part, data, *last_out(data), result)


def taobao_trial(part: str, folder: Path, result: Result) -> Trial:
    """Return the trial of Taobao's log, whose targets are purchases of items that are new to the user."""
    data = taobao(folder / "userbehavior-multibehavior")
    train, requests, _, targets = asked(data, TEST * 1_000_000)
    train = train.with_columns(shuffled=pl.col("behaviour").shuffle(seed=0))
    buying = dict.fromkeys(("behaviour", "shuffled"), np.full(len(requests), "buy"))
    return Trial(part, data, train, Requests(requests.user, requests.time, buying), targets, result)


def titled_trial(part: str, folder: Path, result: Result) -> Trial:
    """Return the trial of a log with titles, split by time."""
    kind, place = TITLED[part]
    data = Dataset.from_tables(load_source(f"{kind}:{folder / place}" if place else kind))
    vectors = embedded("wordllama", [title or "" for title in data.items["title"]])
    return Trial(part, data, *by_time(data), result, vectors)


def table(result: Result, part: str, folder: Path) -> None:
    """Train and compare all models on one public data set, and add the rows and checks."""
    made = {**dict.fromkeys(FOLDERS, last_out_trial), **dict.fromkeys(TITLED, titled_trial), "taobao": taobao_trial}
    trial = made[part](part, folder, result)
    trial.simple()
    for seed in seeds():
        start = time.process_time()
        model = SASRec(SASREC).fit(trial.data, trial.train, seed=seed)
        trial.add("SASRec", model, seed, **{"train seconds": time.process_time() - start})
    blocks: dict[str, tuple[str, dict[str, Any]]] = {"plain": ("SASRec", {})} | chosen_blocks(part)
    common = PLAIN.model_dump() | OWN.get(part, {})
    for name, (control, options) in blocks.items():
        settings = CodeDecoderSettings.model_validate(common | options)
        for seed in seeds():
            trial.decoder(name, settings, seed)
        trial.against(name, control if control in trial.values else "plain")
    best = max(blocks, key=trial.mean)
    if best != "plain":
        trial.against(best, "SASRec")
    if part in PUBLISHED:
        tiger = trial.mean("TIGER's form" if "TIGER's form" in blocks else "plain")
        result.at_least(f"{part}: R@10 of TIGER's form over phonism's", tiger / PUBLISHED[part][0], 0.95)
    ratio = trial.mean(best) / trial.mean("SASRec")
    result.at_least(f"{part}: R@10 of the best decoder ({best}) over SASRec in the same run", ratio, 1.0)


def large(result: Result, part: str, folder: Path) -> None:
    """Train TIGER's form on codes of SASRec's item vectors, and compare it with the published metrics and SASRec."""
    trial = last_out_trial(part, folder, result)
    for seed in seeds():
        teacher = SASRec(SASREC).fit(trial.data, trial.train, seed=seed)
        trial.add("SASRec", teacher, seed)
        trial.vectors = teacher.vectors
        for size in os.environ.get("TAIJI_BENCHMARK_SIZES", "4x128").split(","):
            layers, width = map(int, size.split("x"))
            settings = CodeDecoderSettings.model_validate(
                PLAIN.model_dump() | LARGE | {"layers": layers, "width": width}
            )
            trial.decoder(f"TIGER's form, {size}", settings, seed, curve=True)
    for name in [name for name in trial.values if name != "SASRec"]:
        trial.against(name, "SASRec")
        result.at_least(f"{part}: R@10 of {name} over phonism's", trial.mean(name) / PUBLISHED[part][0], 0.95)


def speed(result: Result, items: int, rows: int, count: int, beam: int, repeats: int, width: int = 64) -> None:
    """Time our beam search and ``generate`` in turn, on the same histories with the same random weights.

    Args:
        result: result to which the row and the checks are added.
        items: number of items in the catalogue.
        rows: number of requests that are decoded together.
        count: length of the longest history.
        beam: number of beams.
        repeats: number of rounds; with more than one, the ratio of the speeds is checked.
        width: width of the decoder.
    """
    random = np.random.default_rng(0)
    sizes = (256, 256, 256)
    codes = np.unique(random.integers(0, sizes, size=(items, 3)), axis=0)
    settings = CodeDecoderSettings(tokens="codes", width=width, history=count)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = CodeNetwork(sizes, settings).eval()
        torch.nn.init.normal_(network.table, std=0.2)
    past = random.integers(0, sizes, size=(rows, count, 3))
    seen = random.integers(1, count + 1, size=rows)
    trie, none = CodeTrie.of(codes, sizes), np.zeros(0, np.int64)
    live, peer, allowed = LiveTrie(trie), twin(network), PrefixDictionary(codes, sizes)
    ids, mask = tokens_of(past, seen, sizes)

    def ours() -> np.ndarray:
        with torch.no_grad():
            scorer = BeamScorer(network, network.read(Past(torch.from_numpy(past))), torch.from_numpy(seen))
            leaves, _ = beam_search(scorer, live.without(none, none).children, rows, 3, beam)
        found: np.ndarray = codes[trie.leaf_items[leaves.numpy()]] + np.cumsum([0, *sizes[:-1]])
        return found

    def theirs() -> np.ndarray:
        return generate(peer, allowed, ids, mask, 3, beam)[0]

    same = float((ours() == theirs()).all(axis=(1, 2)).mean())
    seconds = in_turn(ours, theirs, repeats=repeats)
    row: dict[str, Any] = {"data": f"{len(codes)} items", "model": "speed", "beam": beam, "requests": rows}
    row |= {"history": count}
    row |= {"rows per second": rows / statistics.median(seconds[0])}
    row |= {"generate's": rows / statistics.median(seconds[1]), "ratio": median_ratio(seconds[1], seconds[0])}
    row |= {"requests with the same list": same}
    result.rows.append(row)
    result.so_far()
    if repeats > 1:
        result.at_least(f"beam {beam}: requests per second over generate's", row["ratio"], 5.0)
    result.at_least(f"beam {beam}: requests with the same list", same, 0.99)


def codings(result: Result, folder: Path) -> None:
    """Train the plain decoder on the codes of each coding, and add its hit rate and the share of targets that
    collide."""
    catalogue = item_codes.office(folder)
    assert catalogue.dataset is not None
    train, requests, targets = last_out(catalogue.dataset)
    for collisions in os.environ.get("TAIJI_BENCHMARK_COLLISIONS", "level,list").split(","):
        settings = CodeDecoderSettings.model_validate(PLAIN.model_dump() | {"collisions": collisions})

        def hit_rate(
            catalogue: item_codes.Catalogue, codes: ItemCodes, seed: int, settings: CodeDecoderSettings = settings
        ) -> float:
            assert catalogue.dataset is not None
            decoder = CodeDecoder(settings, codes=codes).fit(catalogue.dataset, train, seed=seed)
            return _mean(recall(hits(decoder.retrieve(requests, 10).items, targets), targets.counts, 10))

        first = len(result.rows)
        item_codes.effect(result, catalogue, hit_rate, seeds=len(seeds()))
        for row in result.rows[first:]:
            row["collisions"] = collisions
        rates: dict[str, list[float]] = {}
        for row in result.rows[first:]:
            rates.setdefault(row["coding"], []).append(row["hit rate"])
        for name in [name for name in rates if name != item_codes.PLAIN]:
            value, low, high = interval(np.subtract(rates[name], rates[item_codes.PLAIN]).tolist())
            result.rows.append({"coding": f"{name} − {item_codes.PLAIN}", "collisions": collisions, "hit rate": value, "low": low, "high": high})  # fmt: skip
        result.so_far()


def churn(result: Result, items: int, decodes: int) -> None:
    """Decode at least ``decodes`` items while a tenth of the catalogue changes before every batch, and count the
    decoded items that were not available or were excluded from the request."""
    random = np.random.default_rng(1)
    sizes = (64, 64, 64)
    codes = random.integers(0, sizes, size=(items, 3))
    trie = CodeTrie.of(codes, sizes, random.random(items))
    network = CodeNetwork(sizes, CodeDecoderSettings(width=16, layers=1)).eval()
    live, rows, done, wrong = LiveTrie(trie), 250, 0, 0
    while done < decodes:
        some = random.choice(items, size=items // 10, replace=False)
        live.set(some, random.random(len(some)) < 0.5)
        hidden = random.integers(0, rows, size=rows * 20), random.integers(0, items, size=rows * 20)
        shown = live.without(*hidden)
        past = Past(torch.from_numpy(random.integers(0, sizes, size=(rows, 5, 3))))
        with torch.no_grad():
            scorer = BeamScorer(network, network.read(past), torch.full((rows,), 5))
            leaves, _ = beam_search(scorer, shown.children, rows, 3, 20)
        row, column = np.nonzero(leaves.numpy() >= 0)
        place, found = shown.items(row, leaves.numpy()[row, column])
        forbidden = np.unique(hidden[0] * items + hidden[1])
        wrong += int((~live.available[found] | np.isin(row[place] * items + found, forbidden)).sum())
        wrong += len(row) - len(np.unique(place))  # leaves without an available item
        done += len(row)
    result.rows.append({"data": f"{items} items", "model": "churn", "decodes": done, "not available": wrong})
    result.so_far()
    result.at_most("decoded items that were not available", wrong, 0)


def measure(quick: bool) -> Result:
    """Run the chosen parts."""
    result = Result()
    if quick:
        return _quick(result)
    parts = os.environ.get("TAIJI_BENCHMARK_PARTS", "speed,churn,beauty,toys,office,movies,codings").split(",")
    folder = public_data() if {*parts} - {"speed", "churn"} else Path()
    for part in parts:
        if part == "speed":
            for beam in (10, 50):
                speed(result, items=12_000, rows=64, count=20, beam=beam, repeats=5)
        elif part == "churn":
            churn(result, items=5000, decodes=100_000)
        elif part == "codings":
            codings(result, folder / "amazon-office")
        elif part.startswith("large-"):
            large(result, part.removeprefix("large-"), folder)
        else:
            table(result, part, folder)
    return result


def _quick(result: Result) -> Result:
    """Run on a synthetic log, in which each item is followed by its neighbour on a circle of items."""
    data = circle()
    trial = Trial("circle", data, *last_out(data), result)
    trial.simple()
    settings = CodeDecoderSettings(
        seen="keep", width=32, layers=1, epochs=6, batch=8, learning_rate=1e-2, dropout=0.0, beam=12
    )
    settings = settings.model_copy(update={"coder_settings": {"levels": 2, "size": 4}})
    row = trial.decoder("plain", settings, 0)
    trial.against("plain", "Popularity")
    result.at_least("N@10 over popularity", row["N@10"] / result.rows[0]["N@10"], 1.2)
    speed(result, items=500, rows=8, count=5, beam=5, repeats=1, width=16)
    churn(result, items=300, decodes=5000)
    return result


if __name__ == "__main__":
    run(measure)
