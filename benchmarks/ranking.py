"""Is the built-in ranker as good as its peers, and is its training faster? Click AUC, and training rows per second.

Peers: logistic regression, LightGBM, and DIN and DCN of torch-rechub. Two other rankers of the package, ``taiji DCN``
and ``taiji DIN``, are measured as well; ``taiji`` is the built-in one. Data: completejourney (in the installed
package), and ml-latest-small if TAIJI_TEST_DATA contains it. Models are trained on the split's ``ranker`` period and
evaluated on its ``test`` period.

Equal for all: rows, features and one training seed. Every model has three configurations. All peers except DIN have a
fourth that reads the numbers alone, as one of the built-in ranker's three does. The configuration with the best AUC on
the latest quarter of the training period is used. All models except logistic regression stop early, on the latest tenth
of the training rows. In the speed measurement, batch size and history are equal, and models take turns in one process.
The peers of torch-rechub use its data loader; to measure their networks alone, they also get ready batches, as the
built-in ranker does.

Rows by ``model``:

- a name: number of training ``rows``, test ``auc`` with its 95 % interval (bootstrap over users), ``seconds`` of
  training and scoring, and the chosen ``configuration``.
- ``taiji - NAME``: AUC of the built-in ranker minus that of the best peer, paired by user.
- ``NAME: training``: ``rows_per_second``, and ``taiji_is_times_faster``, the model's time divided by the built-in
  ranker's.

Checks: the built-in ranker is not shown to be worse than the best peer, and trains at least 1.5 times as many rows per
second as DIN and DCN of torch-rechub with its loader. The full run takes about a quarter of an hour on two cores. A
quick run uses a synthetic shop, without tuning.

    [RANKING_DATA="ml-latest-small completejourney"] python -m benchmarks.ranking [--quick]
        [--json benchmarks/results/ranking.json]
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from benchmarks import ranking_peers as peers
from benchmarks.harness import Result, in_turn, median_ratio, run
from taiji.data.dataset import Dataset
from taiji.data.field_set import FieldSet
from taiji.data.splits import exposures, later_slice, time_split
from taiji.metrics.bootstrap import PooledAUC
from taiji.metrics.intervals import compare, estimate
from taiji.models.ranking.inputs import Inputs
from taiji.models.ranking.ranker import Ranker, ranker_class
from taiji.models.ranking.settings import RankerSettings
from taiji.models.ranking.training_loop import train, training_steps

SPEED = 1.5
"""Smallest allowed ratio of the training rows per second to those of DIN and of DCN of torch-rechub."""
DEEP: list[dict[str, Any]] = [{"batch": 512, "dimension": 16, "lr": rate} for rate in (1e-3, 5e-3, 1e-2)]
NUMBERS_ONLY = {"numbers_only": True}
"""Setting of the peers that corresponds to ``embeddings=False`` of the built-in ranker."""
GRIDS: dict[str, list[dict[str, Any]]] = {
    "taiji": [{}, {"dimension": 16}, {"embeddings": False, "bins": 16, "task_weights": {"conversion": 0.3}}],
    "taiji DCN": [{}, {"dimension": 16}, {"learning_rate": 1e-3}],
    "taiji DIN": [{}, {"dimension": 16}, {"learning_rate": 1e-3}],
    "logistic regression": [{"C": 0.03}, {"C": 0.3}, {"C": 3.0}, {"C": 0.3, **NUMBERS_ONLY}],
    "LightGBM": [
        {"learning_rate": 0.05, "num_leaves": 31},
        {"learning_rate": 0.05, "num_leaves": 127},
        {"learning_rate": 0.02, "num_leaves": 63},
        {"learning_rate": 0.05, "num_leaves": 63, **NUMBERS_ONLY},
    ],
    "DIN": DEEP,
    "DCN": [*DEEP, {**DEEP[0], **NUMBERS_ONLY}],
}


OURS = {"taiji": "target_attention", "taiji DCN": "dcn", "taiji DIN": "din"}
"""Rankers of the package by the names of their rows."""


def built_in(model: str, rows: peers.Rows, configuration: dict[str, Any]) -> np.ndarray:
    """Train a ranker of the package on prepared arrays, and return the click logits of the test rows."""
    ranker = fresh(model, rows, configuration)
    train(ranker, lambda epoch: [rows.fit], len(rows.fit), rows.stop, seed=0)
    return ranker.logits(rows.test)[:, 0]


def fresh(model: str, rows: peers.Rows, configuration: dict[str, Any]) -> Ranker:
    """Return an untrained ranker of the package for a fold, with the inputs that its configuration reads."""
    torch.manual_seed(0)
    made = ranker_class(model)
    ranker = made(made.Settings.model_validate({"model": model, **configuration}))
    wanted = {field.name for field in ranker.fields(rows.inputs.dataset, ())}
    fields = FieldSet([field for field in rows.inputs.fields.fields if field.name in wanted])
    ranker.build(rows.inputs.dataset, fields, ranker.learnt_tasks(rows.inputs.dataset), "cpu")
    ranker.network.prepare(rows.fit)
    return ranker


MODELS: dict[str, Callable[[peers.Rows, dict[str, Any]], np.ndarray]] = {
    **{name: partial(built_in, model) for name, model in OURS.items()},
    "logistic regression": peers.logistic_regression,
    "LightGBM": peers.lightgbm,
    "DIN": lambda rows, configuration: peers.deep("DIN", rows, configuration),
    "DCN": lambda rows, configuration: peers.deep("DCN", rows, configuration),
}


def fold(dataset: Dataset, train: pl.DataFrame, test: pl.DataFrame) -> peers.Rows:
    """Return the arrays of a training frame, whose latest rows are for early stopping, and of a test frame."""
    settings = RankerSettings(device="cpu")
    ranker = ranker_class(settings.model)(settings)
    earlier, later = later_slice(train, settings.valid_fraction)
    end = int(earlier["time"].max()) + 1  # type: ignore[arg-type]
    fields = FieldSet(ranker.fields(dataset, earlier.columns)).fit(dataset, earlier, end)
    inputs = Inputs(dataset, fields, dataset.tasks)
    return peers.Rows(inputs.arrays(earlier), inputs.arrays(later), inputs.arrays(test), inputs)


def auc(rows: peers.Rows, scores: np.ndarray) -> PooledAUC:
    """Return the click AUC over all test rows, for a bootstrap over users."""
    users, codes = np.unique(rows.test.user, return_inverse=True)
    return PooledAUC(codes, rows.test.labels["click"], scores, len(users))


def speeds(rows: peers.Rows, repeats: int, steps: int, batch: int = 512) -> dict[str, list[float]]:
    """Return the seconds of ``steps`` training steps of every deep model, one per repeat, measured in turn. DIN and DCN
    of torch-rechub occur twice: with its data loader, and with ready batches."""
    index = np.random.default_rng(0).permutation(len(rows.fit))[: steps * batch]
    actions: dict[str, Callable[[], Any]] = {}
    for name, model in OURS.items():
        step = training_steps(fresh(model, rows, {"batch": batch}), seed=0)
        actions[name] = lambda step=step: step(rows.fit, index)  # type: ignore[misc]
    for kind in ("DIN", "DCN"):
        peer = peers.DeepPeer(kind, rows, {"batch": batch, "dimension": 16, "lr": 1e-3})
        shipped = peer.shipped_loader(index)
        actions[kind] = lambda peer=peer, shipped=shipped: peer.train_from(shipped)  # type: ignore[misc]
        actions[f"{kind}, fed ready batches"] = lambda peer=peer: peer.train(index)  # type: ignore[misc]
    return dict(zip(actions, in_turn(*actions.values(), repeats=repeats)))


def compare_models(name: str, dataset: Dataset, quick: bool, result: Result) -> None:
    """Tune, train and evaluate every model on one data set, and add rows and checks."""
    split = time_split(dataset)
    train, test = exposures(dataset, split, "ranker"), exposures(dataset, split, "test")
    chosen = {model: grid[0] for model, grid in GRIDS.items()}
    if not quick:
        inner = fold(dataset, *later_slice(train, 0.25))
        for model, grid in GRIDS.items():
            values = [
                float(auc(inner, MODELS[model](inner, configuration))(np.ones((1, len(np.unique(inner.test.user)))))[0])
                for configuration in grid
            ]
            chosen[model] = grid[int(np.argmax(values))]
            print(f"{name} {model}: " + ", ".join(f"{c} {v:.4f}" for c, v in zip(grid, values)), flush=True)
    rows = fold(dataset, train, test)
    resamples = 50 if quick else 1000
    statistics = {}
    for model, action in MODELS.items():
        start = time.perf_counter()
        statistics[model] = auc(rows, action(rows, chosen[model]))
        entry = estimate(statistics[model], resamples=resamples)
        row = {
            "data": name,
            "model": model,
            "rows": len(rows.fit),
            "auc": entry["value"],
            "low": entry["low"],
            "high": entry["high"],
        }
        result.rows.append(row | {"seconds": time.perf_counter() - start, "configuration": str(chosen[model])})
        print(f"{name} {model}: AUC {entry['value']:.4f}", flush=True)
    values = {row["model"]: row["auc"] for row in result.rows if row["data"] == name}
    best = max((model for model in values if model not in OURS), key=values.__getitem__)
    gap = compare(statistics["taiji"], statistics[best], resamples=resamples)
    result.rows.append(
        {"data": name, "model": f"taiji - {best}", "auc": gap["value"], "low": gap["low"], "high": gap["high"]}
    )
    if not quick:
        result.at_least(
            f"{name}: upper end of the interval of the AUC minus that of {best}",
            gap["high"] if gap["high"] is not None else float("nan"),
            0.0,
        )
    steps = 2 if quick else 40
    seconds = speeds(rows, repeats=2 if quick else 5, steps=steps)
    for model, times in seconds.items():
        rate = min(steps * 512, len(rows.fit)) / float(np.median(times))
        ratio = median_ratio(times, seconds["taiji"])
        result.rows.append(
            {"data": name, "model": f"{model}: training", "rows_per_second": rate, "taiji_is_times_faster": ratio}
        )
        if model in ("DIN", "DCN"):
            result.at_least(f"{name}: training rows per second over those of {model}", ratio, 0.0 if quick else SPEED)


def synthetic(users: int = 80, items: int = 100, rows: int = 6000) -> Dataset:
    """Return a small shop whose users have favourite categories, for ``--quick``."""
    from datetime import datetime, timedelta

    from taiji.data.schema import Tables

    random = np.random.default_rng(0)
    category, favourite = random.integers(0, 5, items), random.integers(0, 5, users)
    user, item = random.integers(0, users, rows), random.integers(0, items, rows)
    click = random.random(rows) < np.where(favourite[user] == category[item], 0.7, 0.1)
    times = [datetime(2020, 1, 1) + timedelta(minutes=20 * n) for n in range(rows)]
    kinds = [f"kind {c}" for c in category]
    return Dataset.from_tables(
        Tables(
            pl.DataFrame(
                {
                    "item_id": range(items),
                    "title": kinds,
                    "category_l1": kinds,
                    "category_l2": kinds,
                    "category_l3": kinds,
                }
            ),
            pl.DataFrame({"user_id": range(users)}),
            pl.DataFrame({"user_id": user, "item_id": item, "timestamp": times, "click": click.astype(np.int8)}),
            name="synthetic",
        )
    )


def measure(quick: bool) -> Result:
    """Compare the models on every data set."""
    result = Result()
    if quick:
        compare_models("synthetic", synthetic(), True, result)
        return result
    from taiji.data.sources import load_source

    folder = os.environ.get("TAIJI_TEST_DATA", "")
    wanted = os.environ.get("RANKING_DATA", "ml-latest-small completejourney").split()
    for name in wanted:
        source = name if name == "completejourney" else Path(folder) / name
        if isinstance(source, Path) and not (folder and source.is_dir()):
            print(f"{name}: skipped, TAIJI_TEST_DATA does not contain it")
            continue
        compare_models(name, Dataset.from_tables(load_source(source)), False, result)
    return result


if __name__ == "__main__":
    run(measure)
