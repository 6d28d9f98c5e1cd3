"""Is our SASRec as good as RecTools' SASRec and as the published one, does it beat simple retrievers, and is it faster?

Data (column ``data``): ``beauty`` and ``toys`` are Amazon Beauty and Toys (5-core, 2014, S3-Rec's files), where each
user's last item is the target; ``movies`` is ml-latest-small, split by time, where the targets are the new items after
a random event of the test period. The whole catalogue is ranked, without items that the user has seen.

Models (column ``model``): ``Popularity``, ``ItemKNN``, ``Cooccurrence``, ``EASE``, our ``SASRec``, and ``RecTools
SASRec, LOSS`` (version 0.19, in the environment that ``make peers`` creates). Equal for both SASRecs: width,
blocks, heads, dropout, batch size, learning rate and history length. Ours has a sampled softmax with 1,024 negatives,
which all positions of a step share. RecTools draws separate negatives for every position of every history, including
padding, so it is slowest with 1,024 negatives. Speed is therefore compared with four of its losses, and quality with
two: the full softmax (its default) and 32 negatives, each trained for twice the processor time of ours
(``TAIJI_PEER_FACTOR``).

Columns: ``R@k`` and ``N@k``, recall and NDCG at k; ``train seconds``, processor time of the SASRecs and elapsed time of
the others; ``epoch``, the best one by validation for ours, the epochs so far for RecTools, which has a row for every
second epoch and the last one, and is not trained on ``movies``. Rows ``speed`` compare the training speeds ``sequences/s`` (ours) and
``RecTools sequences/s``, one row for each of four losses of RecTools, in processor time on the same 4,096 histories of
Beauty, one epoch each in turn, three times; ``ratio`` is the median of our speed over RecTools'.

Checks: on Beauty and Toys, R@10 and N@10 reach .97 of the published values, and at least those of RecTools' best epoch,
chosen on the test data; training is at least three times as fast as with RecTools' fastest loss.

``TAIJI_BENCHMARK_PARTS`` (default ``beauty,toys,movies,speed``) chooses parts. ``TAIJI_PEERS`` names the Python of
RecTools' environment. The full run trains for about an hour. A quick run uses a synthetic circle of items, without
RecTools.

    TAIJI_TEST_DATA=FOLDER python -m benchmarks.sequential [--quick] [--json benchmarks/results/sequential.json]
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.harness import Result, public_data, run
from benchmarks.sequential_circle import circle
from taiji.core.component import Requests
from taiji.data import Dataset, load_source, time_split
from taiji.data.history import History
from taiji.metrics.list_metrics import Targets, hits, ndcg, recall
from taiji.models.retrieval.cooccurrence import Cooccurrence
from taiji.models.retrieval.ease import EASE, EASESettings
from taiji.models.retrieval.item_knn import ItemKNN
from taiji.models.retrieval.popularity import Popularity
from taiji.models.retrieval.retriever import CatalogueRetriever
from taiji.models.retrieval.sasrec import SASRec, SASRecSettings

ROOT = Path(__file__).parent.parent
PEERS = Path(os.environ.get("TAIJI_PEERS", ROOT / ".venv-peers" / "bin" / "python"))
PUBLISHED = {"beauty": (0.0921, 0.0531), "toys": (0.0970, 0.0580)}
"""Published recall@10 and NDCG@10 of SASRec with a sampled softmax under this protocol."""
FOLDERS = {"beauty": "s3rec-Beauty", "toys": "s3rec-Toys_and_Games"}
SETTINGS = SASRecSettings(seen="drop", dropout=0.5, valid_users=10**9, check_every=2, patience=5)
DEPTHS = (5, 10, 20)
LOSSES = (("softmax", 1), ("sampled_softmax", 1024), ("sampled_softmax", 32), ("BCE", 1))
"""Losses of RecTools whose speed is measured, with their numbers of negatives."""
TAUGHT = (("softmax", 1), ("sampled_softmax", 32))
"""Losses of RecTools whose quality is measured."""


def last_out(data: Dataset) -> tuple[pl.DataFrame, Requests, Targets]:
    """Return the interactions before each user's last time, one request per user at that time, and the items of that
    time as targets."""
    last = data.events.group_by("user", maintain_order=True).agg(pl.col("time").max().alias("last"))
    events = data.events.join(last, on="user", maintain_order="left")
    test = events.filter(pl.col("time") == pl.col("last")).sort("user")
    users, items = test["user"].to_numpy().astype(np.int64), test["item"].to_numpy().astype(np.int64)
    targets = Targets.of(np.arange(len(users)), items, len(users))
    train = events.filter(pl.col("time") < pl.col("last")).drop("last")
    return train, Requests(users, test["time"].to_numpy()), targets


def by_time(data: Dataset) -> tuple[pl.DataFrame, Requests, Targets]:
    """Return the events before the test period, one request per user at a random event in it, and as targets the items
    after it that are new to the user."""
    from taiji.cascade.requests import period_requests

    start, _ = time_split(data).interval("test")
    requests, targets = period_requests(data, start, 10**6, 0, new_only=True)
    return data.events.filter(pl.col("time") < start), requests, targets


def quality(items: np.ndarray, targets: Targets) -> dict[str, float]:
    """Return recall and NDCG at each depth."""
    hit, counts = hits(items, targets), targets.counts
    out = {f"R@{k}": float(np.nanmean(recall(hit, counts, k))) for k in DEPTHS}
    return out | {f"N@{k}": float(np.nanmean(ndcg(hit, counts, k))) for k in DEPTHS}


def simple(data: Dataset, train: pl.DataFrame, requests: Requests, targets: Targets) -> Iterator[dict[str, Any]]:
    """Yield a row for each retriever without a network."""
    models: list[CatalogueRetriever] = [Popularity(), ItemKNN(), Cooccurrence(), EASE(EASESettings(items=13_000))]
    for model in models:
        model.settings = model.settings.model_copy(update={"seen": "drop"})
        start = time.perf_counter()
        model.fit(data, train)
        seconds = time.perf_counter() - start
        yield {
            "model": type(model).__name__,
            **quality(model.retrieve(requests, 20).items, targets),
            "train seconds": seconds,
        }


def sasrec(
    data: Dataset, train: pl.DataFrame, requests: Requests, targets: Targets, settings: SASRecSettings, seed: int = 0
) -> dict[str, Any]:
    """Train our SASRec, and return its row."""
    start = time.process_time()
    model = SASRec(settings).fit(data, train, seed=seed)
    seconds = time.process_time() - start
    best = max(model.facts["checks"], key=lambda check: check["ndcg"])
    row = {"model": "SASRec", **quality(model.retrieve(requests, 20).items, targets), "train seconds": seconds}
    return row | {"epoch": best["epoch"], "validation N@10": best["ndcg"]}


class Peer:
    """RecTools' SASRec in a process of its own, :mod:`benchmarks.sequential_peer`."""

    def __init__(self, train: pl.DataFrame, settings: SASRecSettings, folder: Path, loss: str, negatives: int) -> None:
        import torch

        clicks = train.filter(pl.col("click") == 1)
        rows = {name: clicks[name].to_numpy().astype(np.int64) for name in ("user", "item", "time")}
        np.savez(folder / "rows.npz", **rows)
        self.out = folder / "lists.npz"
        self.process = subprocess.Popen(
            [str(PEERS), str(ROOT / "benchmarks" / "sequential_peer.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        keys = ("width", "layers", "heads", "dropout", "history", "batch", "learning_rate")
        about = {name: getattr(settings, name) for name in keys}
        about |= {"rows": str(folder / "rows.npz"), "out": str(self.out), "seed": 0}
        about |= {"threads": torch.get_num_threads(), "loss": loss, "negatives": negatives}
        self.sequences = self._ask(json.dumps(about))["sequences"]

    def epoch(self) -> float:
        """Train one more epoch, and return its processor seconds."""
        return float(self._ask("epoch")["seconds"])

    def lists(self, users: np.ndarray) -> np.ndarray:
        """Return the best 20 items of each user."""
        self._ask("recommend")
        with np.load(self.out) as found:
            out = np.full((len(users), 20), -1, dtype=np.int64)
            row = np.searchsorted(users, found["user"])
            out[row, found["rank"] - 1] = found["item"]
        return out

    def _ask(self, line: str) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError("the peer's process exited")
        return dict(json.loads(answer))


@contextmanager
def peer(train: pl.DataFrame, settings: SASRecSettings, loss: str, negatives: int) -> Iterator[Peer]:
    """Start the process of the peer, and end it afterwards."""
    with tempfile.TemporaryDirectory() as name:
        made = Peer(train, settings, Path(name), loss, negatives)
        try:
            yield made
        finally:
            made.process.kill()


def speed(
    data: Dataset, train: pl.DataFrame, settings: SASRecSettings, loss: str, negatives: int, epochs: int
) -> dict[str, Any]:
    """Return the training sequences per second of our SASRec, and of RecTools' with the given loss, measured one epoch
    each in turn."""
    from taiji.models.retrieval.sasrec import epochs_of

    with peer(train, settings, loss, negatives) as theirs:
        history = History.from_events(train, data.n_users)
        ours = epochs_of(SASRec(settings), data, history, seed=0)
        next(ours), theirs.epoch()  # the first epoch of each is a warm-up
        seconds = []
        for _ in range(epochs):
            start = time.process_time()
            next(ours)
            seconds.append((time.process_time() - start, theirs.epoch()))
    ours_median, theirs_median = (statistics.median(column) for column in zip(*seconds))
    return {
        "model": "speed",
        "RecTools loss": f"{loss}, {negatives} negatives" if loss != "softmax" else loss,
        "sequences/s": theirs.sequences / ours_median,
        "RecTools sequences/s": theirs.sequences / theirs_median,
        "ratio": statistics.median(b / a for a, b in seconds),
    }


def taught(theirs: Peer, requests: Requests, targets: Targets, budget: float) -> Iterator[dict[str, float]]:
    """Train the peer until a budget of seconds is spent. After every second epoch and the last one, yield its quality, and the epochs
    and seconds so far."""
    seconds, epoch = 0.0, 0
    while seconds < budget:
        seconds, epoch = seconds + theirs.epoch(), epoch + 1
        if epoch % 2 == 0 or seconds >= budget:
            yield {**quality(theirs.lists(requests.user), targets), "epoch": epoch, "train seconds": seconds}


def measure(quick: bool) -> Result:
    """Run the chosen parts."""
    result = Result()
    if quick:
        return _quick(result)
    parts = os.environ.get("TAIJI_BENCHMARK_PARTS", "beauty,toys,movies,speed").split(",")
    folder = public_data()
    for part in parts:
        if part == "speed":
            data = Dataset.from_tables(load_source(f"sequences:{folder / FOLDERS['beauty']}"))
            train, *_ = last_out(data)
            some = train.filter(pl.col("user").is_in(train["user"].unique().sort().head(4096).implode()))
            ratios = []
            for loss, negatives in LOSSES:
                row = speed(data, some, SETTINGS, loss, negatives, epochs=3)
                result.rows.append({"data": "beauty", **row})
                result.so_far()
                ratios.append(row["ratio"])
            result.at_least(
                "training sequences per second over those of RecTools with its fastest loss", min(ratios), 3.0
            )
        else:
            _part(result, part, folder)
        result.so_far()
    return result


def _part(result: Result, part: str, folder: Path) -> None:
    movies = part == "movies"
    source = f"movielens:{folder / 'ml-latest-small'}" if movies else f"sequences:{folder / FOLDERS[part]}"
    data = Dataset.from_tables(load_source(source))
    train, requests, targets = by_time(data) if movies else last_out(data)
    for row in simple(data, train, requests, targets):
        result.rows.append({"data": part, **row})
        result.so_far()
    row = sasrec(data, train, requests, targets, SETTINGS)
    result.rows.append({"data": part, **row})
    result.so_far()
    if part in PUBLISHED:
        for name, claim in zip(("R@10", "N@10"), PUBLISHED[part]):
            result.at_least(f"{part}: {name} over the published figure", row[name] / claim, 0.97)
    if PEERS.exists() and not movies:
        budget, best = float(os.environ.get("TAIJI_PEER_FACTOR", "2")) * row["train seconds"], dict[str, float]()
        for loss, negatives in TAUGHT:
            with peer(train, SETTINGS, loss, negatives) as theirs:
                for found in taught(theirs, requests, targets, budget):
                    result.rows.append({"data": part, "model": f"RecTools SASRec, {loss}", **found})
                    result.so_far()
                    # The best epoch on the test data is an upper bound for any choice of an epoch.
                    best = {name: max(found[name], best.get(name, 0.0)) for name in ("R@10", "N@10")}
        for name, value in best.items():
            result.at_least(f"{part}: {name} over RecTools' in the same run", row[name] / value, 1.0)


def _quick(result: Result) -> Result:
    """Run on a circle of items, in which only the order of the history determines the next item."""
    data = circle()
    train, requests, targets = last_out(data)
    for row in simple(data, train, requests, targets):
        result.rows.append({"data": "circle", **row})
    quick = SASRecSettings(seen="keep", width=16, layers=1, epochs=10, batch=16, learning_rate=5e-3, negatives=0)
    row = sasrec(data, train, requests, targets, quick)
    result.rows.append({"data": "circle", **row})
    floor = max(other["N@5"] for other in result.rows[:-1])
    result.at_least("N@5 over the best retriever without order", row["N@5"] / max(floor, 1e-9), 1.0)
    return result


if __name__ == "__main__":
    run(measure)
