"""The uplift ladder: what each set of fields adds to the one before it, on one log, before any language model is run.

Every rung is trained on the same rows with the same budget, and compared with the rung before it in pairs, over users and seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taiji.data.field_set import Arrays, FieldSet
from taiji.data.fields import NumbersField, Rows
from taiji.data.tasks import CLICK
from taiji.experiments.uplift_rungs import Rung
from taiji.experiments.uplift_trial import Trial
from taiji.metrics.bootstrap import PooledAUC, distribution
from taiji.metrics.intervals import Entry, difference_of
from taiji.models.ranking.default_fields import default_fields
from taiji.models.ranking.inputs import Inputs
from taiji.models.ranking.pair_fields import PastField
from taiji.models.ranking.ranker import Ranker
from taiji.models.ranking.settings import RankerSettings
from taiji.models.ranking.target_attention import TargetAttentionRanker
from taiji.models.ranking.training_loop import train, validation_loss

Array = NDArray[Any]


@dataclass
class Bench:
    """A trial with the arrays of its rows; fields are fitted once each.

    Attributes:
        trial: candidates. fit, stop, test: arrays with the counts alone, of the earlier and the latest part of training, and the test.
    """

    trial: Trial
    fit: Arrays = field(init=False)
    stop: Arrays = field(init=False)
    test: Arrays = field(init=False)
    base: FieldSet = field(init=False)
    inputs: Inputs = field(init=False)

    def __post_init__(self) -> None:
        trial = self.trial
        dataset = trial.dataset
        made = default_fields(dataset, (), RankerSettings(pair_fields=()))
        self.base = FieldSet(made).fit(dataset, trial.train, trial.cut)
        self.inputs = Inputs(dataset, self.base, (CLICK,))
        later = trial.train["time"].quantile(0.85, interpolation="lower")
        self.late = (trial.train["time"] >= later).to_numpy()
        whole = self.inputs.arrays(trial.train.drop("group"))
        self.fit, self.stop = whole.take(~self.late), whole.take(self.late)
        self.test = self.inputs.arrays(trial.test.drop("group"))

    def numbers(self, made: NumbersField) -> tuple[Array, Array]:
        """Return a field's numbers of the training and the test rows; it is refreshed within the test period."""
        trial = self.trial
        made.fit(trial.dataset, trial.train, trial.cut)
        if isinstance(made, PastField) and made.labels:
            for at in trial.refreshes:
                made.refresh(trial.dataset, at)
        return made.matrix(Rows(trial.dataset, trial.train)), made.matrix(Rows(trial.dataset, trial.test))


Scores = list[Array]
"""Scores of the test rows, (N,), per seed."""
Model = Callable[[Bench, Sequence[NumbersField], Array, Array, int], Scores]
"""A ranker: (bench, added fields, their training numbers, their test numbers, seeds) → scores."""
OURS: list[dict[str, Any]] = [{"embeddings": False, "dropout": 0.4, "learning_rate": 1.5e-3, "patience": 6}, {}]
TREES: list[dict[str, Any]] = [{"num_leaves": 15}, {"num_leaves": 31}]
"""Configurations of each, of which the best on the latest part of training is taken."""


def _with(arrays: Arrays, more: Array) -> Arrays:
    return replace(arrays, numbers=np.ascontiguousarray(np.concatenate([arrays.numbers, more], axis=1)))


def our_ranker(
    bench: Bench, fields: Sequence[NumbersField], train_numbers: Array, test_numbers: Array, seeds: int
) -> Scores:
    """Train the default ranker in its configurations; return scores of the best one's seeds."""
    import torch

    fit, stop = _with(bench.fit, train_numbers[~bench.late]), _with(bench.stop, train_numbers[bench.late])
    test = _with(bench.test, test_numbers)

    def trained(configuration: dict[str, Any], seed: int) -> Ranker:
        ranker = TargetAttentionRanker(RankerSettings(**configuration, tasks=("click",)))
        torch.manual_seed(seed)
        ranker.build(bench.trial.dataset, FieldSet([*bench.base.fields, *fields]), (CLICK,), "cpu")
        ranker.network.prepare(fit)
        train(ranker, lambda epoch: [fit], len(fit), stop, seed)
        return ranker

    tried = [trained(configuration, 0) for configuration in OURS]
    best = int(np.argmin([validation_loss(ranker, stop) for ranker in tried]))
    rankers = [tried[best], *(trained(OURS[best], seed) for seed in range(1, seeds))]
    return [ranker.logits(test)[:, 0] for ranker in rankers]


def boosted_trees(
    bench: Bench, fields: Sequence[NumbersField], train_numbers: Array, test_numbers: Array, seeds: int
) -> Scores:
    """Train LightGBM on the numbers in its configurations; return scores of the best one's seeds."""
    import lightgbm

    table = np.concatenate([_numbers(bench, bench.fit, bench.stop), train_numbers], axis=1)
    labels = bench.trial.train["click"].to_numpy()
    data = lightgbm.Dataset(table[~bench.late], labels[~bench.late], params={"verbose": -1})
    stop = lightgbm.Dataset(table[bench.late], labels[bench.late], reference=data)
    common = {"objective": "binary", "verbose": -1, "num_threads": 1, "deterministic": True, "learning_rate": 0.06}
    common |= {
        "min_data_in_leaf": 50,
        "feature_fraction": 0.7,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "lambda_l2": 5,
    }

    def trained(configuration: dict[str, Any], seed: int) -> Any:
        stopped: list[Callable[..., Any]] = [lightgbm.early_stopping(40, verbose=False)]
        return lightgbm.train(
            {**common, **configuration, "seed": seed}, data, 600, valid_sets=[stop], callbacks=stopped
        )

    tried = [trained(configuration, 0) for configuration in TREES]
    best = int(np.argmin([model.best_score["valid_0"]["binary_logloss"] for model in tried]))
    models = [tried[best], *(trained(TREES[best], seed) for seed in range(1, seeds))]
    rows = np.concatenate([bench.test.numbers, test_numbers], axis=1)
    return [np.asarray(model.predict(rows)) for model in models]


def _numbers(bench: Bench, fit: Arrays, stop: Arrays) -> Array:
    out = np.empty((len(bench.late), fit.numbers.shape[1]), dtype=np.float32)
    out[~bench.late], out[bench.late] = fit.numbers, stop.numbers
    return out


MODELS: Mapping[str, Model] = {"LightGBM": boosted_trees, "taiji": our_ranker}


def climb(
    trial: Trial,
    rungs: Sequence[Rung],
    models: Sequence[str] = tuple(MODELS),
    *,
    seeds: int = 2,
    resamples: int = 500,
) -> Iterator[dict[str, Any]]:
    """Train every rung and compare it with the one before it.

    Args:
        trial: candidates. rungs: in order. models: of :data:`MODELS`. seeds: trainings per rung and model. resamples: of users and seeds.

    Yields:
        a dict per model, rung and stratum: ``model, rung, group, rows, auc``, of the paired difference ``against, gain, low, high``,
        and the rung's cost.
    """
    bench = Bench(trial)
    stacked: list[tuple[NumbersField, Array, Array]] = []
    scores: dict[tuple[str, str], Scores] = {}
    before: dict[str, str] = {}
    for rung in rungs:
        added = [(made, *bench.numbers(made)) for made in rung.fields(trial)]
        against = rung.against or next(reversed(before), None)
        replaced = {part[0].name for part in added} if rung.side else set()
        ground = [part for part in stacked if part[0].name not in replaced]
        used = [*ground, *added]
        width = [np.zeros((len(trial.train), 0), np.float32)], [np.zeros((len(trial.test), 0), np.float32)]
        train_numbers = np.concatenate([*width[0], *(part[1] for part in used)], axis=1)
        test_numbers = np.concatenate([*width[1], *(part[2] for part in used)], axis=1)
        fields = [part[0] for part in used if part[0].labels]
        for model in models:
            scores[model, rung.name] = MODELS[model](bench, fields, train_numbers, test_numbers, seeds)
            for group, chosen in trial.strata().items():
                found = _compared(trial, scores, model, rung.name, against, group, chosen, resamples)
                yield found | dict(rung.cost)
        if not rung.side:
            stacked, before[rung.name] = used, rung.name


def _compared(
    trial: Trial,
    scores: Mapping[tuple[str, str], Scores],
    model: str,
    rung: str,
    against: str | None,
    group: str,
    chosen: Array,
    resamples: int,
) -> dict[str, Any]:
    users, codes = np.unique(trial.test["user"].to_numpy()[chosen], return_inverse=True)
    labels = trial.test["click"].to_numpy()[chosen]
    row: dict[str, Any] = {"model": model, "rung": rung, "group": group, "rows": int(chosen.sum())}
    if len(np.unique(labels)) < 2:
        return row | {"auc": None}
    own = [PooledAUC(codes, labels, found[chosen], len(users)) for found in scores[model, rung]]
    if against is None:
        return row | {"auc": float(np.mean([auc(np.ones((1, len(users))))[0] for auc in own]))}
    other = [PooledAUC(codes, labels, found[chosen], len(users)) for found in scores[model, against]]
    points, draws = distribution([*own, *other], resamples=resamples)
    gaps = draws[:, : len(own)] - draws[:, len(own) :]
    picked = np.random.default_rng(0).integers(0, len(own), gaps.shape)
    found: Entry = difference_of(
        own,
        other,
        float(np.mean(points[: len(own)] - points[len(own) :])),
        np.take_along_axis(gaps, picked, axis=1).mean(axis=1),
    )
    return row | {
        "auc": float(points[: len(own)].mean()),
        "against": against,
        "gain": found["value"],
        "low": found["low"],
        "high": found["high"],
    }
