"""How fast are rankers and retrievers on the GPU, and rankers on the machine's CPU?"""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np
import polars as pl
import torch
from benchmarks import ranking_stream
from benchmarks.harness import Result

from taiji.core.component import Requests
from taiji.data.dataset import Dataset
from taiji.data.field_set import FieldSet
from taiji.models.ranking.ranker import Ranker, ranker_class
from taiji.models.ranking.training_loop import training_steps
from taiji.models.retrieval.code_decoder import CodeDecoder
from taiji.models.retrieval.sasrec import SASRec
from tools.gpu.card import Card

RANKERS = ("target_attention", "dcn", "din")


def shown(rows: int) -> pl.DataFrame:
    """Return random exposures after the shop's history, with clicks that depend on the item."""
    random = np.random.default_rng(1)
    item = random.integers(0, ranking_stream.ITEMS, rows)
    click = (random.random(rows) < 0.1 + 0.3 * (item % 3 == 0)).astype(np.int8)
    user, time = random.integers(0, ranking_stream.USERS, rows), 10**13 + np.sort(random.integers(0, 10**12, rows))
    return pl.DataFrame({"user": user, "item": item, "time": time, "click": click, "conversion": click})


def rankers(card: Card, result: Result) -> None:
    """Add the rows per second of each ranker in training and scoring, on the GPU and on the CPU, and check that the
    logits are equal."""
    data, batch, steps = ranking_stream.shop(2_000 if card.quick else 200_000), 256 if card.quick else 8192, 2 if card.quick else 10  # fmt: skip
    frame = shown(batch * steps)
    index = np.arange(len(frame))
    for model in RANKERS:
        row: dict[str, Any] = {"part": "ranker", "model": model, "batch": batch}
        logits = {}
        for device in dict.fromkeys((card.device, "cpu")):
            ranker = fresh_ranker(model, data, frame, device, batch)
            arrays, train = ranker.inputs.arrays(frame), training_steps(ranker, seed=0)
            seconds = card.seconds(lambda t=train, a=arrays: t(a, index), 5 if device != "cpu" else 2)
            row[f"train rows/s, {device}"] = len(index) / statistics.median(seconds)
            seconds = card.seconds(lambda r=ranker, a=arrays: r.logits(a), 3 if device != "cpu" else 1)
            row[f"score rows/s, {device}"] = len(index) / statistics.median(seconds)
            fresh = fresh_ranker(model, data, frame, device, batch)
            logits[device] = fresh.logits(arrays)
        off = float(np.abs(logits[card.device] - logits["cpu"]).max())
        result.rows.append(row | {"logits differ": off})
        result.at_most(f"{model}: largest difference of the logits between GPU and CPU", off, 1e-3)
        result.so_far()


def fresh_ranker(model: str, data: Dataset, frame: pl.DataFrame, device: str, batch: int) -> Ranker:
    """Return an untrained ranker, with the same weights on any device."""
    torch.manual_seed(0)
    kind = ranker_class(model)
    ranker = kind(kind.Settings(model=model, device=device, batch=batch))
    fields = ranker.fields(data, frame.columns)
    ranker.build(data, FieldSet(fields).fit(data, frame, int(frame["time"][0])), ranker.learnt_tasks(data), device)
    ranker.network.prepare(ranker.inputs.arrays(frame))
    return ranker


def retrievers(card: Card, result: Result) -> None:
    """Add the seconds of one training epoch, and the lists per second, of SASRec and of the decoder over item codes."""
    events = 2_000 if card.quick else 200_000
    data = ranking_stream.shop(events)
    users = np.unique(data.events["user"].to_numpy())[: 64 if card.quick else 4096]
    requests = Requests(users, np.full(len(users), int(data.events["time"].max()) + 1))  # type: ignore[arg-type]
    learnt: dict[str, Any] = {
        "sasrec": SASRec(SASRec.Settings(epochs=1, device=card.device)),
        "code_decoder": CodeDecoder(CodeDecoder.Settings(epochs=1, device=card.device)),
    }
    for name, model in learnt.items():
        fit = card.seconds(lambda m=model: m.fit(data, seed=0), 1, 0)[0]
        ask = statistics.median(card.seconds(lambda m=model: m.retrieve(requests, 10), 3))
        result.rows.append({"part": "retriever", "model": name, "interactions": events, "s an epoch, codes included": fit, "lists/s": len(users) / ask})  # fmt: skip
        result.so_far()
