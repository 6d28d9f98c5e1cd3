"""Baselines that a language model's answer must beat. They use no language model, and only data from before the
example's time.

- ``popularity``: the items with the most clicks so far;
- ``own favourite``: the user's most frequent item;
- ``own category``: the user's most frequent category at each level (it names no item);
- ``co-occurrence``: items that occur close to the user's latest items in the histories of all users, where later items
  of the user weigh more;
- ``mean history``: the mean embedding of the user's latest items, in place of the answer's embedding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

if TYPE_CHECKING:
    from taiji.data.dataset import Dataset

Array = NDArray[Any]
SEED_ITEMS = 20
"""Number of latest items whose neighbours are counted."""
REACH = 3
"""Largest distance, in positions, between two items of a history that count as neighbours."""
DECAY = 0.9
"""The r-th latest item, with r = 0 for the latest, has the weight DECAY ** r."""


@dataclass(frozen=True)
class Baseline:
    """A baseline's proposals for each example.

    Args:
        name: name shown in the report.
        items: (E, K) dense ids of at most K items for each of E examples, best first, padded with −1; None if the
            baseline names no items.
        levels: (E, depth) proposed category levels (object array of str or None).
    """

    name: str
    items: Array | None
    levels: Array


def item_levels(dataset: Dataset) -> Array:
    """Return the category levels (n_items, depth) of every item, as str or None."""
    levels = [dataset.items[name].to_numpy().astype(object) for name in dataset.levels]
    return np.stack(levels, axis=1) if levels else np.empty((dataset.n_items, 0), dtype=object)


def baselines(dataset: Dataset, examples: pl.DataFrame, *, size: int = 100, new_only: bool = True) -> list[Baseline]:
    """Return all baselines except the mean history, which is computed by
    :func:`taiji.features.history_mean.history_mean`.

    Args:
        dataset: history and items.
        examples: columns ``user, as_of``; for each row, only data before its ``as_of`` are read.
        size: largest number of items that a baseline proposes.
        new_only: leave out the user's earlier items, because targets are new. ``own favourite`` is not affected,
            because it consists of earlier items.
    """
    levels = item_levels(dataset)
    histories = _histories(dataset, examples)
    seen = histories if new_only else None
    popular = popularity(dataset, examples, size, seen)
    near = co_occurrence(dataset, examples, histories, size, seen)
    own = np.full((len(examples), 1), -1, dtype=np.int64)
    categories = np.full((len(examples), levels.shape[1]), None, dtype=object)
    for row, items in enumerate(histories):
        if len(items):
            own[row, 0] = _most_frequent(items)
            for level in range(levels.shape[1]):
                named = [name for name in levels[items, level] if name is not None]
                categories[row, level] = _most_frequent(named) if named else None
    return [
        Baseline("popularity", popular, _levels_of(levels, popular)),
        Baseline("own favourite", own, _levels_of(levels, own)),
        Baseline("own category", None, categories),
        Baseline("co-occurrence", near, _levels_of(levels, near)),
    ]


def popularity(dataset: Dataset, examples: pl.DataFrame, size: int, seen: list[Array] | None = None) -> Array:
    """Return the items with the most clicks before each example's time, (E, size) dense item ids, padded with −1.

    Ties are broken by item id.
    """
    clicks = dataset.events.filter(pl.col("click") == 1).sort("time", maintain_order=True)
    times, items = clicks["time"].to_numpy(), clicks["item"].to_numpy()
    as_of, counts, done = examples["as_of"].to_numpy(), np.zeros(dataset.n_items, dtype=np.int64), 0
    best = np.full((len(examples), size), -1, dtype=np.int64)
    for row in np.argsort(as_of, kind="stable"):
        until = int(np.searchsorted(times, as_of[row], side="left"))
        counts += np.bincount(items[done:until], minlength=dataset.n_items)
        done = until
        best[row] = _top(counts, size, None if seen is None else seen[row])
    return best


def co_occurrence(
    dataset: Dataset,
    examples: pl.DataFrame,
    histories: list[Array],
    size: int,
    seen: list[Array] | None = None,
) -> Array:
    """Return the items (E, size) that occur most often within ``REACH`` positions of the user's latest items, in all
    histories before the example's time; ties are broken by id.
    """
    as_of = examples["as_of"].to_numpy()
    wanted = np.zeros(dataset.n_items, dtype=bool)
    for items in histories:
        wanted[items[:SEED_ITEMS]] = True
    seeds, others, times = _pairs(dataset, wanted, int(as_of.max(initial=0)))
    first = np.searchsorted(seeds, np.arange(dataset.n_items + 1))
    best = np.full((len(examples), size), -1, dtype=np.int64)
    for row, items in enumerate(histories):
        scores = np.zeros(dataset.n_items)
        for rank, item in enumerate(items[:SEED_ITEMS]):
            start, end = first[item], first[item + 1]
            end = start + int(np.searchsorted(times[start:end], as_of[row], side="left"))
            np.add.at(scores, others[start:end], DECAY**rank)
        best[row] = _top(scores, size, None if seen is None else seen[row])
    return best


def _pairs(dataset: Dataset, wanted: Array, until: int) -> tuple[Array, Array, Array]:
    """Return all pairs of a ``wanted`` item (the seed) and a neighbour in a history, before ``until``.

    Returns:
        seed, neighbour, and time from which the pair is known, (P,) each, sorted by seed, then time.
    """
    history = dataset.history
    items, times = np.asarray(history.items, dtype=np.int64), np.asarray(history.times)
    owner = np.repeat(np.arange(len(history.offsets) - 1), np.diff(history.offsets))
    parts = []
    for gap in range(1, REACH + 1):
        older, newer = items[:-gap], items[gap:]
        valid = (owner[:-gap] == owner[gap:]) & (times[gap:] < until) & (older != newer)
        for seed, other in ((older, newer), (newer, older)):
            use = valid & wanted[seed]
            parts.append((seed[use], other[use], times[gap:][use]))  # a pair is known once its later event happened
    seeds, others, known = (np.concatenate(column) for column in zip(*parts))
    order = np.lexsort((known, seeds))
    return seeds[order], others[order], known[order]


def _histories(dataset: Dataset, examples: pl.DataFrame) -> list[Array]:
    """Return all items of each example's user before the example's time, newest first."""
    longest = int(np.diff(dataset.history.offsets).max(initial=0))
    return [
        np.asarray(dataset.history.before(user, as_of, max(longest, 1))[0], dtype=np.int64)
        for user, as_of in zip(examples["user"], examples["as_of"])
    ]


def _most_frequent(values: Iterable[Any]) -> Any:
    """Return the most frequent value; ties go to the one seen first (the newest)."""
    return Counter(values).most_common(1)[0][0]


def _top(scores: Array, size: int, seen: Array | None) -> Array:
    """Return the ``size`` items with the highest positive scores, ties broken by item id, padded with −1."""
    scores = scores.astype(np.float64)
    if seen is not None:
        scores[seen] = 0
    there = np.flatnonzero(scores > 0)
    if len(there) > size:
        least = np.partition(scores[there], len(there) - size)[len(there) - size]
        there = there[scores[there] >= least]
    chosen = there[np.lexsort((there, -scores[there]))[:size]]
    return np.pad(chosen, (0, size - len(chosen)), constant_values=-1)


def _levels_of(levels: Array, items: Array) -> Array:
    claimed = np.full((len(items), levels.shape[1]), None, dtype=object)
    there = items[:, 0] >= 0
    claimed[there] = levels[items[there, 0]]
    return claimed
