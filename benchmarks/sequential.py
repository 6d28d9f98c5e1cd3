"""Sequential retrieval on public benchmarks: SASRec on packed histories beside RecTools' SASRec, and the simple retrievers.

Data: Amazon Beauty and Toys (5-core, 2014; S3-Rec's files), last item out, the whole catalogue ranked with seen items left out; and
ml-latest-small by time. Ours and RecTools' (0.19, from the environment that ``make peers`` makes) have the same width, blocks, heads,
dropout, batch, step size and length, a sampled softmax with as many negatives, and are trained an epoch each in turn.
``TAIJI_BENCHMARK_PARTS=beauty,toys,movies,speed`` chooses parts; ``TAIJI_PEERS`` names the environment's Python.
Quick: a synthetic circle of items, without the peer.
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

from benchmarks.harness import Result, run
from taiji.core.component import Requests
from taiji.data import Dataset, load_source, time_split
from taiji.data.history import History
from taiji.data.schema import Tables
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
"""Recall@10 and NDCG@10 of SASRec with a sampled softmax, as published: their claim, on this protocol."""
FOLDERS = {"beauty": "s3rec-Beauty", "toys": "s3rec-Toys_and_Games"}
SETTINGS = SASRecSettings(seen="drop", dropout=0.5, valid_users=10**9, check_every=2, patience=5)
DEPTHS = (5, 10, 20)


def last_out(data: Dataset) -> tuple[pl.DataFrame, Requests, Targets]:
    """Return all interactions but each user's last, requests at the last ones, and these as targets."""
    last = data.events.group_by("user", maintain_order=True).agg(pl.col("time").max().alias("last"))
    events = data.events.join(last, on="user", maintain_order="left")
    test = events.filter(pl.col("time") == pl.col("last")).sort("user")
    users, items = test["user"].to_numpy().astype(np.int64), test["item"].to_numpy().astype(np.int64)
    targets = Targets.of(np.arange(len(users)), items, len(users))
    train = events.filter(pl.col("time") < pl.col("last")).drop("last")
    return train, Requests(users, test["time"].to_numpy()), targets


def by_time(data: Dataset) -> tuple[pl.DataFrame, Requests, Targets]:
    """Return what happened before the test period, requests at a random event of each user in it, and what follows."""
    from taiji.cascade.requests import period_requests

    start, _ = time_split(data).interval("test")
    requests, targets = period_requests(data, start, 10**6, 0, new_only=True)
    return data.events.filter(pl.col("time") < start), requests, targets


def quality(items: np.ndarray, targets: Targets) -> dict[str, float]:
    """Return recall and NDCG at the depths."""
    hit, counts = hits(items, targets), targets.counts
    out = {f"R@{k}": float(np.nanmean(recall(hit, counts, k))) for k in DEPTHS}
    return out | {f"N@{k}": float(np.nanmean(ndcg(hit, counts, k))) for k in DEPTHS}


def simple(data: Dataset, train: pl.DataFrame, requests: Requests, targets: Targets) -> Iterator[dict[str, Any]]:
    """Yield the rows of the retrievers without a network."""
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
) -> tuple[dict[str, Any], SASRec]:
    """Return the row of our SASRec, and the model."""
    start = time.perf_counter()
    model = SASRec(settings).fit(data, train, seed=seed)
    seconds = time.perf_counter() - start
    best = max(model.facts["checks"], key=lambda check: check["ndcg"])
    row = {"model": "SASRec", **quality(model.retrieve(requests, 20).items, targets), "train seconds": seconds}
    return row | {"epoch": best["epoch"], "validation N@10": best["ndcg"]}, model


class Peer:
    """RecTools' model in its own process."""

    def __init__(self, train: pl.DataFrame, settings: SASRecSettings, folder: Path, threads: int) -> None:
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
        keys = ("width", "layers", "heads", "dropout", "history", "batch", "learning_rate", "negatives")
        about = {name: getattr(settings, name) for name in keys}
        about |= {"rows": str(folder / "rows.npz"), "out": str(self.out), "seed": 0, "threads": threads}
        self.sequences = self._ask(json.dumps(about))["sequences"]

    def epoch(self) -> float:
        """Train an epoch and return its seconds."""
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
            raise RuntimeError("the peer's process ended")
        return dict(json.loads(answer))


@contextmanager
def peer(train: pl.DataFrame, settings: SASRecSettings, threads: int) -> Iterator[Peer]:
    """Start the peer, and end it afterwards."""
    with tempfile.TemporaryDirectory() as name:
        made = Peer(train, settings, Path(name), threads)
        try:
            yield made
        finally:
            made.process.kill()


def speed(data: Dataset, train: pl.DataFrame, settings: SASRecSettings, epochs: int) -> dict[str, Any]:
    """Return sequences per second of both, an epoch each in turn."""
    import torch

    from taiji.models.retrieval.sasrec import epochs_of

    threads = torch.get_num_threads()
    with peer(train, settings, threads) as theirs:
        history = History.from_events(train, data.n_users)
        ours = epochs_of(SASRec(settings), data, history, seed=0)
        next(ours), theirs.epoch()  # the first of each warms up
        seconds = [(next(ours), theirs.epoch()) for _ in range(epochs)]
    sequences = int((np.diff(history.offsets) > 1).sum())
    ratios = [b / a for a, b in seconds]
    return {
        "model": "speed",
        "sequences/s": sequences / statistics.median(a for a, _ in seconds),
        "RecTools sequences/s": sequences / statistics.median(b for _, b in seconds),
        "ratio": statistics.median(ratios),
        "threads": threads,
    }


def measure(quick: bool) -> Result:
    """Train and compare."""
    result = Result()
    if quick:
        return _quick(result)
    parts = os.environ.get("TAIJI_BENCHMARK_PARTS", "beauty,toys,movies,speed").split(",")
    folder = Path(os.environ["TAIJI_TEST_DATA"])
    for part in parts:
        if part == "speed":
            data = Dataset.from_tables(load_source(f"sequences:{folder / FOLDERS['beauty']}"))
            train, *_ = last_out(data)
            row = speed(data, train, SETTINGS, epochs=3)
            result.rows.append({"data": "beauty", **row})
            result.at_least("training sequences per second over RecTools'", row["ratio"], 3.0)
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
    row, model = sasrec(data, train, requests, targets, SETTINGS)
    result.rows.append({"data": part, **row})
    result.so_far()
    if part in PUBLISHED:
        for name, claim in zip(("R@10", "N@10"), PUBLISHED[part]):
            result.at_least(f"{part}: {name} over the published figure", row[name] / claim, 0.97)
    if PEERS.exists() and not movies:
        import torch

        with peer(train, SETTINGS, torch.get_num_threads()) as theirs:
            epochs = max(check["epoch"] for check in model.facts["checks"])
            start = time.perf_counter()
            best: dict[str, float] = {}
            for epoch in range(1, epochs + 1):
                theirs.epoch()
                # Their best epoch by the test itself: a bound on what any choice of theirs could give.
                if epoch % 5 == 0 or epoch == epochs:
                    found = quality(theirs.lists(requests.user), targets)
                    best = max(best, found, key=lambda q: q.get("N@10", -1.0))
            seconds = time.perf_counter() - start
        result.rows.append(
            {"data": part, "model": "RecTools SASRec", **best, "train seconds": seconds, "epoch": epochs}
        )
        for name in ("R@10", "N@10"):
            result.at_least(f"{part}: {name} over RecTools' in the same run", row[name] / best[name], 1.0)


def _quick(result: Result) -> Result:
    """A circle of items, whose next one only the order tells."""
    random = np.random.default_rng(0)
    rows = [
        (f"u{user}", f"i{(start + step) % 12:02d}", step)
        for user, start in enumerate(random.integers(12, size=120))
        for step in range(int(random.integers(4, 9)))
    ]
    users, items, steps = zip(*rows)
    names = sorted(set(items))
    tables = Tables(
        items=pl.DataFrame({"item_id": names, "title": names}),
        users=pl.DataFrame({"user_id": sorted(set(users))}),
        events=pl.DataFrame({"user_id": users, "item_id": items, "step": steps}).select(
            "user_id",
            "item_id",
            pl.from_epoch(pl.col("step") * 86_400, "s").alias("timestamp"),
            pl.lit(1).alias("click"),
        ),
        name="circle",
    )
    data = Dataset.from_tables(tables)
    train, requests, targets = last_out(data)
    for row in simple(data, train, requests, targets):
        result.rows.append({"data": "circle", **row})
    quick = SASRecSettings(seen="keep", width=16, layers=1, epochs=10, batch=16, learning_rate=5e-3, negatives=0)
    row, _ = sasrec(data, train, requests, targets, quick)
    result.rows.append({"data": "circle", **row})
    floor = max(other["N@5"] for other in result.rows[:-1])
    result.at_least("N@5 over the best retriever without order", row["N@5"] / max(floor, 1e-9), 1.0)
    return result


if __name__ == "__main__":
    run(measure)
