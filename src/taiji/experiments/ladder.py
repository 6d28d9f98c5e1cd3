"""The uplift ladder: gain of each set of fields on one log, before any language model is run.

Each step of the ladder, a rung, adds a set of fields. A ranker is trained for every rung, on the same rows with the
same budget. It is compared, paired by user and seed, with the ranker of the nearest earlier rung whose fields pay off.
A control is compared with the rung on which it builds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taiji.core.progress import purpose
from taiji.data.field_set import Arrays, FieldSet
from taiji.data.fields import NumbersField, Rows
from taiji.data.tasks import CLICK
from taiji.experiments.decision import MOST
from taiji.experiments.study import over_users_and_seeds
from taiji.experiments.uplift_rungs import Rung
from taiji.experiments.uplift_trial import Trial, late_from
from taiji.metrics.bootstrap import PooledAUC, distribution
from taiji.metrics.intervals import Entry, difference_of
from taiji.models.ranking.default_fields import default_fields
from taiji.models.ranking.inputs import Inputs
from taiji.models.ranking.pair_fields import PastField
from taiji.models.ranking.paying_fields import FOLDS, losses_by_group, user_groups, worth
from taiji.models.ranking.ranker import Ranker
from taiji.models.ranking.settings import RankerSettings
from taiji.models.ranking.target_attention import TargetAttentionRanker
from taiji.models.ranking.training_loop import train, validation_loss

Array = NDArray[Any]


@dataclass
class Bench:
    """Training and test arrays of a trial, shared by all rungs.

    Attributes:
        trial: the candidate items and their labels.
        fit: arrays of the earlier part of training. Like ``stop`` and ``test``, they contain the fields of rung 0, with
            point-in-time counts.
        stop: arrays of the latest 15 % of training, for early stopping.
        test: arrays of the test.
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
        self.late = (trial.train["time"] >= late_from(trial.train)).to_numpy()
        whole = self.inputs.arrays(trial.train.drop("group"))
        self.fit, self.stop = whole.take(~self.late), whole.take(self.late)
        self.test = self.inputs.arrays(trial.test.drop("group"))

    def numbers(self, made: NumbersField) -> tuple[Array, Array]:
        """Fit a field, refresh it within the test period, and return its values for the training and the test rows."""
        trial = self.trial
        made.fit(trial.dataset, trial.train, trial.cut)
        if isinstance(made, PastField) and made.labels:
            for at in trial.refreshes:
                made.refresh(trial.dataset, at)
        return made.matrix(Rows(trial.dataset, trial.train)), made.matrix(Rows(trial.dataset, trial.test))


Scores = list[Array]
"""Scores of the test rows, (N,), per seed."""


@dataclass(frozen=True)
class Fitted:
    """Results of a model on a rung, one per seed.

    Attributes:
        scores: scores of the test rows.
        losses: (G,) mean loss of each group of users on the latest part of training, see
            :func:`taiji.models.ranking.paying_fields.losses_by_group`.
        rows: (G,) rows per group.
    """

    scores: Scores
    losses: list[Array]
    rows: Array

    def where_it_pays(self, before: Fitted) -> tuple[Scores, float]:
        """Drop the rung's fields in each seed in which they do not pay off.

        Args:
            before: result without the rung's fields.

        Returns:
            scores per seed, and the share of seeds in which the fields are kept.
        """
        pays = [worth("", old, new, self.rows).pays for old, new in zip(before.losses, self.losses)]
        return [new if kept else old for kept, old, new in zip(pays, before.scores, self.scores)], float(np.mean(pays))


Model = Callable[[Bench, Sequence[NumbersField], Array, Array, int], Fitted]
"""Function that trains a ranker: (bench, added fields, their training values, their test values, number of seeds) →
result."""
OURS: list[dict[str, Any]] = [{"embeddings": False, "dropout": 0.4, "learning_rate": 1.5e-3, "patience": 6}, {}]
TREES: list[dict[str, Any]] = [{"num_leaves": 15}, {"num_leaves": 31}]
"""Configurations of each model; the best one on the latest part of training is used."""


def _with(arrays: Arrays, more: Array) -> Arrays:
    return replace(arrays, numbers=np.ascontiguousarray(np.concatenate([arrays.numbers, more], axis=1)))


def our_ranker(
    bench: Bench, fields: Sequence[NumbersField], train_numbers: Array, test_numbers: Array, seeds: int
) -> Fitted:
    """Train the default ranker in each of its configurations, and return the results of the best one for all seeds."""
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
    judged = [losses_by_group(ranker, stop) for ranker in rankers]
    return Fitted([ranker.logits(test)[:, 0] for ranker in rankers], [losses for losses, _ in judged], judged[0][1])


def boosted_trees(
    bench: Bench, fields: Sequence[NumbersField], train_numbers: Array, test_numbers: Array, seeds: int
) -> Fitted:
    """Train LightGBM on the numerical inputs in each of its configurations, and return the results of the best one for
    all seeds."""
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
    group = user_groups(bench.stop.user)
    counted = np.bincount(group, minlength=FOLDS)
    losses = []
    for model in models:
        chance = np.clip(np.asarray(model.predict(table[bench.late])), 1e-7, 1 - 1e-7)
        terms = -np.where(labels[bench.late] == 1, np.log(chance), np.log1p(-chance))
        losses.append(np.bincount(group, terms, FOLDS) / np.maximum(counted, 1))
    return Fitted([np.asarray(model.predict(rows)) for model in models], losses, counted)


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
    level: float = 0.95,
) -> Iterator[dict[str, Any]]:
    """Train the rankers of every rung, and compare each rung with an earlier one (``against``).

    Args:
        trial: candidates.
        rungs: rungs in order.
        models: names in :data:`MODELS`.
        seeds: trainings per rung and model.
        resamples: resamples of users and seeds.
        level: coverage of the intervals.

    Yields:
        a dict per model, rung and stratum: ``model, rung, group, rows, auc``; ``against, gain, low, high`` (the paired
        difference); the rung's cost; and the shares of rows about which the rung has information.
        If the fields of a rung have no values on this log (for example because no texts distinguish the items), the
        dict has ``unread`` instead of a gain.
        A rung with ``must_pay`` also has ``kept``, the share of seeds in which its fields pay off on the latest part of
        training, and ``kept_gain, kept_low, kept_high``: the paired difference if the model drops the fields in the
        seeds in which they do not pay off.
    """
    bench = Bench(trial)
    stood = {model: _Standing() for model in models}
    for place, rung in enumerate(rungs, start=1):
        added = [(made, *bench.numbers(made)) for made in rung.fields(trial)]
        replaced = {part[0].name for part in added} if rung.side else set()
        unread = bool(added) and not any(part[0].labels for part in added)
        strata, beside = rung.strata(trial), {**rung.cost, **rung.shares(trial)}
        for model in models:
            stand = stood[model]
            against = stand.base_of(rung)
            used = [*(part for part in stand.ground if part[0].name not in replaced), *added]
            labelled = [part[0] for part in used if part[0].labels]
            with purpose(f"ladder, {place} of {len(rungs)}: {rung.name.partition(':')[0]}"):
                found = MODELS[model](bench, labelled, *_beside(trial, used), seeds)
            old = stand.fitted[against] if against is not None and not unread else None
            kept, share = found.where_it_pays(old) if old is not None and rung.must_pay else (None, 1.0)
            for group, chosen in strata.items():
                row = {"model": model, "rung": rung.name, "group": group, "rows": int(chosen.sum())}
                row |= _compared(trial, found.scores, old.scores if old else None, chosen, resamples, level)
                if against is not None and "gain" in row:
                    row["against"] = against
                if unread:
                    row["unread"] = True
                if kept is not None and old is not None and "gain" in row:
                    gap = _compared(trial, kept, old.scores, chosen, resamples, level)
                    row |= {"kept": share} | {f"kept_{key}": gap[key] for key in ("gain", "low", "high")}
                yield row | beside
            stand.climbed(rung, found, used, share)


Part = tuple[NumbersField, Array, Array]
"""A field with its values for the training and the test rows."""


@dataclass
class _Standing:
    """State of a model on the ladder.

    Attributes:
        ground: fields on which the next rung builds.
        fitted: results by rung.
        instead: for each rung that does not pay off, the rung that replaces it as a reference.
        last: last rung that pays off.
    """

    ground: list[Part] = field(default_factory=list)
    fitted: dict[str, Fitted] = field(default_factory=dict)
    instead: dict[str, str] = field(default_factory=dict)
    last: str | None = None

    def base_of(self, rung: Rung) -> str | None:
        """Return the rung with which a rung is compared."""
        asked = rung.against or self.last
        return self.instead.get(asked, asked) if asked is not None else None

    def climbed(self, rung: Rung, found: Fitted, used: list[Part], share: float) -> None:
        """Record a rung. Later rungs build on it if its fields pay off in at least half of the seeds."""
        self.fitted[rung.name] = found
        if rung.side:
            return
        if share < MOST and (base := self.base_of(rung)) is not None:
            self.instead[rung.name] = base
        else:
            self.ground, self.last = used, rung.name


def _beside(trial: Trial, parts: Sequence[Part]) -> tuple[Array, Array]:
    """Return the concatenated values of fields, for the training and the test rows."""
    train, test = [np.zeros((len(trial.train), 0), np.float32)], [np.zeros((len(trial.test), 0), np.float32)]
    return (
        np.concatenate([*train, *(part[1] for part in parts)], axis=1),
        np.concatenate([*test, *(part[2] for part in parts)], axis=1),
    )


def _compared(
    trial: Trial, scores: Scores, before: Scores | None, chosen: Array, resamples: int, level: float
) -> dict[str, Any]:
    """Return the AUC on the ``chosen`` test rows, and the gain over the scores ``before`` with its interval."""
    users, codes = np.unique(trial.test["user"].to_numpy()[chosen], return_inverse=True)
    labels = trial.test["click"].to_numpy()[chosen]
    if len(np.unique(labels)) < 2:
        return {"auc": None}
    own = [PooledAUC(codes, labels, found[chosen], len(users)) for found in scores]
    if before is None:
        return {"auc": float(np.mean([auc(np.ones((1, len(users))))[0] for auc in own]))}
    other = [PooledAUC(codes, labels, found[chosen], len(users)) for found in before]
    points, draws = distribution([*own, *other], resamples=resamples)
    gaps, gap = draws[:, : len(own)] - draws[:, len(own) :], points[: len(own)] - points[len(own) :]
    means, spread = over_users_and_seeds(gap[:, None], gaps[:, :, None], 0, level)
    found: Entry = difference_of(own, other, float(means[0]), spread[:, 0], level)
    return {"auc": float(points[: len(own)].mean()), "gain": found["value"], "low": found["low"], "high": found["high"]}
