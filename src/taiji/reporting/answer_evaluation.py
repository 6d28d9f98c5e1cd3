"""Evaluation of a language model's answers against baselines without a language model.

Metrics are means over examples. Definitions for one example (ours if the Taiji paper gives none):

- category accuracy: 1 if the parsed level equals the true one, ignoring case and repeated spaces;
- title hit@K: 1 if the target is among the K catalogue items nearest to the answer's embedding, otherwise 0; if the
  target ties with other items at the K-th place, the probability that it is among the first K after the tied items are
  shuffled;
- CTCVR: score of the nearest catalogue item, not normalised, under an evaluation ranker that was not used in training;
- grounding: cosine between the answer and the nearest catalogue item; ``grounding_low``: 1 if it is below a threshold.

A malformed answer counts as wrong in category accuracy and hit@K. It has a CTCVR and a coverage of 0, and is excluded
from grounding, redundancy and ``intents``.

For a set of intents, category accuracy, CTCVR and grounding are means over the intents, because an intent is one guess,
like the item that a baseline proposes. hit@K takes the K items nearest to any intent. Further metrics, from
:mod:`taiji.metrics.intent_sets`:

- coverage: mean, over the next items, of the best cosine to an intent;
- redundancy: share of the intents after the first that repeat an earlier one;
- ``intents``: number of intents after near-duplicates are merged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from taiji.core.errors import InputError
from taiji.features.history_mean import history_mean
from taiji.language.embed import encode_sets
from taiji.metrics.baselines import baselines, item_levels
from taiji.metrics.bootstrap import Ratio, distribution
from taiji.metrics.intent_sets import coverage, merged, redundancy
from taiji.metrics.intervals import differences, interval_of
from taiji.metrics.ranking_metrics import hits
from taiji.reasoning.answers import DEPTH, field, parse
from taiji.reporting.catalogue import Catalogue

if TYPE_CHECKING:
    from taiji.data.dataset import Dataset
    from taiji.language.embed import Embedder

Array = NDArray[Any]
Scorer = Callable[[Array, Array, Array], Array]
LATEST = 50
"""Number of interactions in the baseline ``mean history``, equal to the default ``history_limit`` of prompts."""
LISTS = (50, 100)
SHARES = ("category_l", "hit@", "format", "grounding_low")
"""Name prefixes of metrics with values in [0, 1] per example."""


def evaluate_answers(
    dataset: Dataset,
    examples: pl.DataFrame,
    completions: Mapping[str, Sequence[str]],
    embedder: Embedder,
    evaluation_score: Scorer | None = None,
    *,
    threshold: float = 0.5,
    new_only: bool = True,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    catalogue: Catalogue | None = None,
    most: int = 1,
) -> list[dict[str, Any]]:
    """Evaluate each model's completions and the baselines on the same examples.

    Args:
        dataset: source of catalogue and history.
        examples: ``user, as_of, target``, one row per prompt.
        completions: model → one completion per row of ``examples``. The first model is the reference of the others.
        embedder: embedder of answers and items.
        evaluation_score: ``(users, items, as_ofs) -> ctcvr (N,)``, each array (N,); None omits CTCVR.
        threshold: similarity to the nearest item below which an answer counts as not grounded.
        new_only: True if targets are items new to the user; baselines then exclude the user's earlier items.
        resamples, level, seed: number of resamples, coverage and seed of the bootstrap over users.
        catalogue: the embedded catalogue, if available.
        most: largest number of intents per answer; above 1, ``examples`` needs ``targets``, lists of next items.

    Returns:
        Rows ``{"model", "kind", "metric", "value", "low", "high", "n"}`` with ``kind`` ``model``, ``baseline`` or
        ``oracle`` (CTCVR of the true item). Every model has ``competitors``, its differences from the baselines. Models
        after the first also have ``difference``, the difference from the first model.

    Raises:
        InputError: there are no examples, or a model has the wrong number of completions.
    """
    if not len(examples):
        raise InputError(
            "There are no examples to evaluate the answers on.",
            fix="lower examples.min_history, or give the test period more of split.fractions",
        )
    for model, texts in completions.items():
        if len(texts) != len(examples):
            raise InputError(
                "A model's completions do not match the examples.",
                where=model,
                expected=str(len(examples)),
                found=str(len(texts)),
            )
    evaluation = _Evaluation(dataset, examples, embedder, evaluation_score, threshold, catalogue, most)
    tables: list[tuple[str, str, dict[str, Array]]] = [
        (model, "model", evaluation.answers(texts)) for model, texts in completions.items()
    ]
    tables += [
        (baseline.name, "baseline", evaluation.proposals(baseline.items, baseline.levels))
        for baseline in baselines(dataset, examples, size=max(LISTS), new_only=new_only)
    ]
    tables.append(
        (
            "mean history",
            "baseline",
            evaluation.vectors(
                history_mean(dataset, evaluation.users, evaluation.as_ofs, evaluation.catalogue.vectors, LATEST)
            ),
        )
    )
    if evaluation_score is not None:
        tables.append(("true item", "oracle", {"ctcvr": evaluation.ctcvr(evaluation.targets)}))
    contents = {model: tuple(texts) for model, texts in completions.items()}
    return _rows(tables, contents, examples["user"].to_numpy(), resamples, level, seed)


class _Evaluation:
    """Per-example values (E,) of every metric, NaN where an example is excluded."""

    def __init__(
        self,
        dataset: Dataset,
        examples: pl.DataFrame,
        embedder: Embedder,
        score: Scorer | None,
        threshold: float,
        catalogue: Catalogue | None = None,
        most: int = 1,
    ) -> None:
        self.users, self.as_ofs = examples["user"].to_numpy().astype(np.int64), examples["as_of"].to_numpy()
        self.targets = examples["target"].to_numpy().astype(np.int64)
        self.catalogue = catalogue or Catalogue(dataset, embedder, int(self.as_ofs.min()))
        self._names, self._levels = dataset.levels, item_levels(dataset)
        self._embedder, self._score, self._threshold = embedder, score, threshold
        self._most, self._next = most, examples["targets"].to_list() if most > 1 else []

    def answers(self, completions: Sequence[str]) -> dict[str, Array]:
        """Return the metrics of completions."""
        if self._most > 1:
            return self._sets(completions)
        depth = len(self._names)
        parsed = [parse(text, max(depth, DEPTH)) for text in completions]
        formed = np.array([answer.well_formed for answer in parsed])
        claimed = np.array(
            [answer.levels[:depth] if answer.well_formed else (None,) * depth for answer in parsed],
            dtype=object,
        ).reshape(len(parsed), depth)
        queries = self._embedder.encode([answer.text if answer.well_formed else "" for answer in parsed])
        found = self.catalogue.search(queries, self.targets)
        values = self._accuracies(claimed)
        values |= {f"hit@{k}": hits(found.above, found.tied, k) * formed for k in LISTS}
        values |= self._scored(np.where(formed, found.item, -1))
        values["format"] = formed.astype(np.float64)
        values["grounding"] = np.where(formed, found.similarity, np.nan)
        values["grounding_low"] = np.where(formed, found.similarity < self._threshold, np.nan)
        return values

    def vectors(self, queries: Array) -> dict[str, Array]:
        """Return the metrics of vectors (E, d) used in place of answer embeddings. The nearest item's levels count as
        the claimed levels."""
        found, there = self.catalogue.search(queries, self.targets), np.abs(queries).sum(axis=1) > 0
        claimed = self._levels[found.item].copy()
        claimed[~there] = None
        values = self._accuracies(claimed) | {f"hit@{k}": hits(found.above, found.tied, k) * there for k in LISTS}
        values |= self._covering(queries[:, None])
        return values | self._scored(np.where(there, found.item, -1))

    def proposals(self, items: Array | None, claimed: Array) -> dict[str, Array]:
        """Return the metrics of ranked items (E, K), padded with −1, and claimed levels (E, depth).

        If ``items`` is None, only the category accuracies are returned.
        """
        values = self._accuracies(claimed)
        if items is None:
            return values
        match = items == self.targets[:, None]
        values |= {f"hit@{k}": match[:, :k].any(axis=1).astype(np.float64) for k in LISTS}
        first = items[:, : self._most]
        values |= self._covering(
            np.where((first >= 0)[:, :, None], self.catalogue.vectors_of(np.maximum(first, 0)), 0.0)
        )
        return values | self._scored(items[:, 0])

    def _sets(self, completions: Sequence[str]) -> dict[str, Array]:
        """Return the metrics of completions with up to ``most`` intents each."""
        depth, most = len(self._names), self._most
        parsed = [parse(text, max(depth, DEPTH), most) for text in completions]
        formed = np.array([answer.well_formed for answer in parsed])
        intents = [answer.intents if answer.well_formed else () for answer in parsed]
        vectors = encode_sets(self._embedder, [[intent.text for intent in said] for said in intents], most)
        there = np.abs(vectors).sum(axis=2) > 0
        counts = np.maximum(there.sum(axis=1), 1)

        def mean(each: Array) -> Array:
            """Return the mean (E,) over each answer's intents (E, m)."""
            return np.asarray(np.where(there, each, 0.0).sum(axis=1) / counts, dtype=np.float64)

        each = self.catalogue.search(vectors.reshape(-1, vectors.shape[2]), np.repeat(self.targets, most))
        items, similarity = each.item.reshape(-1, most), each.similarity.reshape(-1, most)
        values: dict[str, Array] = {}
        claimed = np.full((len(parsed), most, depth), None, dtype=object)
        for row, said in enumerate(intents):
            for place, intent in enumerate(said):
                claimed[row, place] = intent.levels[:depth]
        right = [self._accuracies(claimed[:, place]) for place in range(most)]
        values |= {name: mean(np.stack([values[name] for values in right], axis=1)) for name in self._names}
        for name in self._names:
            values[name] = np.where(np.isfinite(right[0][name]), values[name], np.nan)
        found = self.catalogue.search(vectors, self.targets)
        values |= {f"hit@{k}": hits(found.above, found.tied, k) * formed for k in LISTS}
        if self._score is not None:
            scores = [self.ctcvr(np.where(there[:, place], items[:, place], -1)) for place in range(most)]
            values["ctcvr"] = mean(np.stack(scores, axis=1))
        values["format"] = formed.astype(np.float64)
        values["grounding"] = np.where(formed, mean(similarity), np.nan)
        values["grounding_low"] = np.where(formed, mean(similarity < self._threshold), np.nan)
        values |= self._covering(vectors)
        for name in ("redundancy", "intents"):
            values[name] = np.where(formed, values[name], np.nan)
        return values

    def _covering(self, vectors: Array) -> dict[str, Array]:
        """Return coverage, redundancy and number of distinct intents of sets of vectors (E, m, d); empty for single
        answers."""
        if self._most == 1:
            return {}
        wide = max(len(items) for items in self._next)
        coming = np.zeros((len(vectors), wide, vectors.shape[2]), dtype=np.float32)
        for row, items in enumerate(self._next):
            coming[row, : len(items)] = self.catalogue.vectors_of(items)
        distinct = [len(merged(row, np.ones(len(row)))[0]) for row in vectors]
        return {
            "coverage": coverage(vectors, coming),
            "redundancy": redundancy(vectors),
            "intents": np.array(distinct, dtype=np.float64),
        }

    def ctcvr(self, items: Array) -> Array:
        """Return the evaluation ranker's scores of items (E,), 0 for a missing item (−1)."""
        scores, there = np.zeros(len(items)), items >= 0
        if self._score is not None and there.any():
            scores[there] = self._score(self.users[there], items[there], self.as_ofs[there])
        if not np.isfinite(scores).all():
            raise InputError(
                "The evaluation ranker's score is not a finite number.",
                found=f"{int((~np.isfinite(scores)).sum())} of {len(scores)} scores",
                fix="check the ranker that produced it",
            )
        return scores

    def _scored(self, items: Array) -> dict[str, Array]:
        return {} if self._score is None else {"ctcvr": self.ctcvr(items)}

    def _accuracies(self, claimed: Array) -> dict[str, Array]:
        truth = self._levels[self.targets]
        values = {}
        for column, name in enumerate(self._names):
            right = [
                fold(a) == fold(b) if b is not None else np.nan for a, b in zip(claimed[:, column], truth[:, column])
            ]
            values[name] = np.array(right, dtype=np.float64)
        return values


def fold(level: str | None) -> str | None:
    """Normalise a category level to the answer format: case-folded, with single spaces."""
    return None if level is None else " ".join(field(level).casefold().split())


def _rows(
    tables: list[tuple[str, str, dict[str, Array]]],
    contents: Mapping[str, tuple[str, ...]],
    users: Array,
    resamples: int,
    level: float,
    seed: int,
) -> list[dict[str, Any]]:
    unique, codes = np.unique(users, return_inverse=True)
    rows: list[dict[str, Any]] = []
    for metric in dict.fromkeys(name for _, _, values in tables for name in values):
        having = [
            (name, kind, values[metric])
            for name, kind, values in tables
            if metric in values and np.isfinite(values[metric]).any()
        ]
        if not having:
            continue
        having.sort(key=lambda arm: arm[1] != "baseline")  # an arm's competitors are those listed before it
        statistics = [
            Ratio.of_rows(codes, values, len(unique), proportion=metric.startswith(SHARES)) for _, _, values in having
        ]
        points, draws = distribution(statistics, resamples=resamples, seed=seed)
        first = next((name for name, kind, _ in tables if kind == "model"), "")
        names, every = [name for name, _, _ in having], [[statistic] for statistic in statistics]
        competitors = [name for name, kind, _ in having if kind == "baseline"]
        same = [contents.get(name, name) for name in names]
        gaps = differences(names, points, draws, every, same, first, competitors, level)
        for column, ((name, kind, _), own) in enumerate(zip(having, every)):
            row = {
                "model": name,
                "kind": kind,
                "metric": metric,
                **interval_of(own, points[column], draws[:, column], level),
            }
            rows.append(row | gaps[column] if kind == "model" else row)
    order = [name for name, _, _ in tables]
    return sorted(rows, key=lambda row: order.index(row["model"]))
