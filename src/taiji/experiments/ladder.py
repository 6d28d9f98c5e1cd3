"""The uplift ladder: what each set of fields adds to the one before it, on one log, before any language model is run.

A row is a candidate: an item that a user took for the first time, or one that others took in the same window. Every
rung is trained on the same rows with the same budget, and compared with the rung before it in pairs, over users and seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from taiji.core.errors import InputError
from taiji.data.dataset import Dataset
from taiji.data.event_columns import NO_COLUMNS
from taiji.data.field_set import Arrays, FieldSet
from taiji.data.fields import NumbersField, Rows
from taiji.data.item_text import item_texts
from taiji.data.tasks import CLICK
from taiji.data.vocabulary import stable_hash
from taiji.language.item_vectors import embedded
from taiji.metrics.bootstrap import PooledAUC, distribution
from taiji.metrics.intervals import Entry, difference_of
from taiji.models.ranking.default_fields import default_fields
from taiji.models.ranking.inputs import Inputs
from taiji.models.ranking.pair_fields import CollaborativeMatch, PastField, TextMatch
from taiji.models.ranking.ranker import Ranker
from taiji.models.ranking.settings import RankerSettings
from taiji.models.ranking.target_attention import TargetAttentionRanker
from taiji.models.ranking.training_loop import train, validation_loss
from taiji.nn.set_match import SET_MATCHES, weighted_match

Array = NDArray[Any]
NEGATIVES = 4
"""Candidates per item taken, of what others took in the same window."""
FIRST, TEST = 0.3, 0.8
"""Shares of the first touches after which candidates begin, and after which they are tested on."""
WINDOWS = 20
REFRESHES = 4
"""How often in the test period what is known of items is refreshed; as often in training."""
NEXT = 10
"""Items that the oracle of intents knows."""
FEWEST_ROWS = 200


@dataclass(frozen=True, eq=False)
class Trial:
    """Candidates of one log.

    Attributes:
        dataset: the log with each user's first touch of each item only. train, test: ``user, item, time, click``, in time order.
        cut: start of the test period (microseconds). refreshes: times in it at which fields are refreshed.
    """

    dataset: Dataset
    train: pl.DataFrame
    test: pl.DataFrame
    cut: int
    refreshes: tuple[int, ...]

    @classmethod
    def of(cls, dataset: Dataset, *, most: int | None = None, seed: int = 0) -> Trial:
        """Draw the candidates.

        Args:
            dataset: any log. most: candidates at most, a sample of the items taken. seed: of candidates and sample.

        Raises:
            InputError: too few first touches after the log's beginning.
        """
        clicks = dataset.events.filter(pl.col("click") == 1)
        first = clicks.unique(["user", "item"], keep="first", maintain_order=True)
        touched = first.drop("event").with_row_index("event").with_columns(exposed=pl.lit(True))
        user, item, time = (touched[name].to_numpy().astype(np.int64) for name in ("user", "item", "time"))
        start = int(np.searchsorted(time, time[int(FIRST * len(time))])) if len(time) else 0
        if len(time) - start < FEWEST_ROWS or time[start] == time[-1]:
            raise InputError(
                "The log is too short for a ladder.",
                where=f"data {dataset.name}",
                expected=f"at least {FEWEST_ROWS} first touches of items after the first {FIRST:.0%}, at different times",
                found=f"{len(time) - start} of {len(time)}",
            )
        random = np.random.default_rng(seed)
        parts = [
            _window(user, item, time, slice(a, b), dataset.n_items, random) for a, b in _windows(time, start) if b > a
        ]
        rows = pl.concat(parts)
        if most is not None and len(rows) > most:
            share = most / len(rows)
            kept = random.random(len(time)) < share
            rows = rows.filter(pl.Series(kept[rows["group"].to_numpy()]))
        rows = rows.sort("time", maintain_order=True)
        cut = int(time[int(TEST * len(time))])
        later = np.quantile(time[time >= cut], np.arange(1, REFRESHES) / REFRESHES, method="lower")
        plain = Dataset(
            dataset.items,
            dataset.users,
            touched.select("event", "user", "item", "time", "exposed", "click", "conversion", "matured_at", "price"),
            dataset.name,
            dataset.domain,
            (),
            NO_COLUMNS,
            dataset.levels,
        )
        refreshes = tuple(sorted({int(at) for at in later if at > cut}))
        return cls(plain, rows.filter(pl.col("time") < cut), rows.filter(pl.col("time") >= cut), cut, refreshes)

    @cached_property
    def cold(self) -> Array:
        """Which test rows are of items without an event before the test period."""
        past = self.dataset.events.filter(pl.col("time") < self.cut)["item"].to_numpy()
        return np.bincount(past, minlength=self.dataset.n_items)[self.test["item"].to_numpy()] == 0

    @cached_property
    def sparse(self) -> Array:
        """Which test rows are of the third of users with the shortest history at their time."""
        users, times = (self.test[name].to_numpy() for name in ("user", "time"))
        known = self.dataset.history.count_before(users, times)
        return known <= np.quantile(known, 1 / 3)

    def strata(self) -> dict[str, Array]:
        """Return rows of the test by name: all, cold items, sparse users, both."""
        every = np.ones(len(self.test), dtype=bool)
        return {"all": every, "cold items": self.cold, "sparse": self.sparse, "both": self.cold & self.sparse}


def _windows(time: Array, start: int) -> list[tuple[int, int]]:
    """Return parts of the first touches from ``start`` on, with about as many each; an instant is never torn apart."""
    places = start + (len(time) - start) * np.arange(1, WINDOWS) // WINDOWS
    bounds = [start, *np.searchsorted(time, time[places]), len(time)]
    return [(int(a), int(b)) for a, b in pairwise(bounds)]


def _window(
    user: Array, item: Array, time: Array, part: slice, items: int, random: np.random.Generator
) -> pl.DataFrame:
    """Return a window's first touches, each with :data:`NEGATIVES` items that others took in it and the user never does."""
    group = np.arange(part.start, part.stop)
    own = np.sort(user * items + item)
    asked = np.repeat(group, NEGATIVES)
    drawn = np.full(len(asked), -1)
    open_ = np.arange(len(asked))
    for _ in range(20):
        found = item[part][random.integers(0, part.stop - part.start, len(open_))]
        keys = user[asked[open_]] * items + found
        free = own[np.minimum(np.searchsorted(own, keys), len(own) - 1)] != keys
        drawn[open_[free]] = found[free]
        open_ = open_[~free]
    there = drawn >= 0
    groups = np.concatenate([group, asked[there]])
    return pl.DataFrame(
        {
            "user": user[groups],
            "item": np.concatenate([item[part], drawn[there]]),
            "time": time[groups],
            "click": np.concatenate([np.ones(len(group)), np.zeros(int(there.sum()))]).astype(np.int8),
            "group": groups,
        }
    )


@dataclass(frozen=True)
class Rung:
    """A rung of the ladder.

    Attributes:
        name: shown in tables.
        fields: makes the fields that it adds, from the trial. against: rung that it is compared with; None: the one before.
        side: an arm beside the ladder (a control, an oracle): rungs after it do not stand on it.
    """

    name: str
    fields: Callable[[Trial], Sequence[NumbersField]]
    against: str | None = None
    side: bool = False


def counts(trial: Trial) -> list[NumbersField]:
    """Return nothing: point-in-time counts are in every rung."""
    return []


def collaborative(trial: Trial) -> list[NumbersField]:
    """Return the fields of the log alone."""
    return [CollaborativeMatch(refreshes=REFRESHES)]


@dataclass(frozen=True)
class Text:
    """Makes the fields of item texts.

    Attributes:
        embedder: its name. kind: class of the field; a control is a class of its own. vector: components of the item's text.
    """

    embedder: str
    kind: type[TextMatch] = TextMatch
    vector: int = 32

    def __call__(self, trial: Trial) -> list[NumbersField]:
        """Return them."""
        return [self.kind(self.embedder, vector=self.vector, refreshes=REFRESHES)]


class PermutedTexts(TextMatch):
    """Negative control: every item has another item's text."""

    def embed(self, dataset: Dataset, items: Array) -> Array:
        """Return the vectors of other items."""
        found = super().embed(dataset, np.arange(dataset.n_items))
        return found[np.random.default_rng(0).permutation(dataset.n_items)[items]]


class RandomVectors(TextMatch):
    """Negative control: vectors with the means and covariances of the texts', and nothing of their order."""

    def embed(self, dataset: Dataset, items: Array) -> Array:
        """Return normal vectors of the same geometry."""
        found = super().embed(dataset, np.arange(dataset.n_items))
        centre = found.mean(axis=0)
        mixed = np.random.default_rng(0).standard_normal((len(found), len(found))) if len(found) < 500 else None
        if mixed is None:
            root = np.linalg.cholesky(np.cov(found.T) + 1e-9 * np.eye(found.shape[1]))
            made = centre + np.random.default_rng(0).standard_normal(found.shape) @ root.T
        else:
            made = centre + mixed @ (found - centre) / np.sqrt(len(found))
        return made.astype(np.float32)[items]


class NoiseTitles(TextMatch):
    """Negative control: titles of as many words, drawn from all titles."""

    def embed(self, dataset: Dataset, items: Array) -> Array:
        """Return the vectors of such titles."""
        texts = [text.split() for text in item_texts(dataset)]
        words = np.array([word for text in texts for word in text])
        words = words[np.random.default_rng(0).permutation(len(words))]
        ends = np.cumsum([len(text) for text in texts])
        noise = [" ".join(words[end - len(text) : end]) for text, end in zip(texts, ends)]
        return embedded(self.embedder_used, [noise[item] for item in items])


class AnotherHistory(TextMatch):
    """Negative control: texts are compared with the history of another user."""

    def matrix(self, rows: Rows) -> Array:
        """Return the numbers of each row as if another user asked."""
        others = np.random.default_rng(0).permutation(rows.dataset.n_users)
        return super().matrix(Rows(rows.dataset, rows.frame.with_columns(user=pl.Series(others[rows.user]))))


class NextItems(NumbersField):
    """Oracle of a set answer: agreement of a candidate with the texts of what its user really takes next.

    The set is known at the last refresh before the row, as an answer would be; the row's own item is left out, so that
    nothing but a taste is known.

    Args:
        text: fitted; whose vectors are compared. times: at which answers are made, ascending. own: leave the row's item in.
    """

    def __init__(self, text: TextMatch, times: Sequence[int], own: bool = False, name: str = "next_items") -> None:
        super().__init__(name, "pair")
        self.text, self.times, self.own = text, np.asarray(times, dtype=np.int64), own

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the numbers."""
        return tuple(f"{self.name}_{part}" for part in SET_MATCHES) if self.text.labels else ()

    def matrix(self, rows: Rows) -> Array:
        """Return the agreement, (N, 3) float32; 0 before the first answer."""
        numbers, out = self.text.numbering(rows.dataset), np.zeros((len(rows), len(SET_MATCHES)), np.float32)
        made = np.searchsorted(self.times, rows.time, side="right") - 1
        for start in range(0, len(rows), 4096):
            part = slice(start, start + 4096)
            asked = np.where(made[part] >= 0, self.times[np.maximum(made[part], 0)], np.iinfo(np.int64).max)
            items, _ = rows.dataset.history.after_batch(rows.user[part], asked, NEXT)
            there = (items >= 0) & (self.own | (items != rows.item[part][:, None]))
            sets = np.where(there, numbers[items], -1)
            cosines = self.text.vectors.batch_cosines(sets, numbers[rows.item[part]][:, None])
            out[part] = weighted_match(cosines.reshape(NEXT, -1), there.T.astype(np.float32)).T
        return out


@dataclass(frozen=True)
class NextTexts:
    """Makes the oracle of a set answer over the texts of an embedder; see :class:`NextItems`."""

    embedder: str
    own: bool = False

    def __call__(self, trial: Trial) -> list[NumbersField]:
        """Return its field; answers are made when items are refreshed."""
        text = TextMatch(self.embedder, refreshes=REFRESHES)
        text.fit(trial.dataset, trial.train, trial.cut)
        return [NextItems(text, [*map(int, text.cuts), *trial.refreshes], self.own)]


def ladder(embedder: str) -> list[Rung]:
    """Return the rungs that need no language model, the controls of the text, and the oracle of intents.

    A further rung is one more entry: its fields, and what it is compared with.
    """
    base, text = "1 collaborative", f"2 text match, {embedder}"
    return [
        Rung("0 counts", counts),
        Rung(base, collaborative),
        Rung(text, Text(embedder)),
        Rung(f"{text}: control, permuted texts", Text(embedder, PermutedTexts), base, True),
        Rung(f"{text}: control, random vectors", Text(embedder, RandomVectors), base, True),
        Rung(f"{text}: control, noise titles", Text(embedder, NoiseTitles), base, True),
        Rung(f"{text}: control, another history", Text(embedder, AnotherHistory, 0), base, True),
        Rung(
            f"4 oracle of intents, {embedder}: the true next {NEXT}, own item left out", NextTexts(embedder), text, True
        ),
    ]


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
OURS: list[dict[str, Any]] = [{"embeddings": False, "bins": 16}, {}]
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
        a dict per model, rung and stratum: ``model, rung, group, rows, auc``, and of the paired difference ``against, gain, low, high``.
    """
    bench = Bench(trial)
    stacked: list[tuple[NumbersField, Array, Array]] = []
    scores: dict[tuple[str, str], Scores] = {}
    before: dict[str, str] = {}
    for rung in rungs:
        added = [(made, *bench.numbers(made)) for made in rung.fields(trial)]
        against = rung.against or next(reversed(before), None)
        ground = [part for part in stacked if not (rung.side and _same_texts(part[0], added))]
        used = [*ground, *added]
        width = [np.zeros((len(trial.train), 0), np.float32)], [np.zeros((len(trial.test), 0), np.float32)]
        train_numbers = np.concatenate([*width[0], *(part[1] for part in used)], axis=1)
        test_numbers = np.concatenate([*width[1], *(part[2] for part in used)], axis=1)
        fields = [part[0] for part in used if part[0].labels]
        for model in models:
            scores[model, rung.name] = MODELS[model](bench, fields, train_numbers, test_numbers, seeds)
            for group, chosen in trial.strata().items():
                yield _compared(trial, scores, model, rung.name, against, group, chosen, resamples)
        if not rung.side:
            stacked, before[rung.name] = used, rung.name


def _same_texts(made: NumbersField, added: Sequence[tuple[NumbersField, Array, Array]]) -> bool:
    """Return whether a control stands in the place of a field: both are texts."""
    return isinstance(made, TextMatch) and any(isinstance(other, TextMatch) for other, _, _ in added)


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


def log_facts(trial: Trial) -> dict[str, float]:
    """Return what a log says before anything is trained: the inputs of the decision table.

    ``new_items``: share of items taken in the test that nobody took before. ``history``: median interactions of a user before
    a test row. ``distinct_titles``: share of items with a text of their own. ``words``: mean words of a text. ``users``, ``items``:
    of the test.
    """
    taken = trial.test.filter(pl.col("click") == 1)
    texts = item_texts(trial.dataset)
    lengths = [len(text.split()) for text in texts]
    known = trial.dataset.history.count_before(taken["user"].to_numpy(), taken["time"].to_numpy())
    return {
        "users": taken["user"].n_unique(),
        "items": taken["item"].n_unique(),
        "new_items": float(trial.cold[(trial.test["click"] == 1).to_numpy()].mean()),
        "history": float(np.median(known)),
        "distinct_titles": len(np.unique(stable_hash(texts))) / max(len(texts), 1),
        "words": float(np.mean(lengths)) if lengths else 0.0,
    }
