"""Item factors, neighbours and counts, learnt from the log before a given time and cached per dataset and time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from taiji.data.dataset import Dataset
from taiji.data.history import History
from taiji.models.retrieval.cooccurrence import symmetric_pairs
from taiji.models.retrieval.item_factors import item_factors
from taiji.models.retrieval.neighbours import strongest
from taiji.nn.quantised_vectors import QuantisedVectors

Array = NDArray[Any]
WIDTH = 32
"""Number of factors per item."""
NEIGHBOURS = 50
"""Number of co-occurring items kept per item."""
SHRINKAGE = 5.0
"""Constant added to the product of two items' counts, so that chance co-occurrences of rare items get a low weight."""
WINDOW, STEP_DECAY = 5, 0.8
"""Largest distance between co-occurring interactions in a history, and decay of their weight per step of distance."""


@dataclass(frozen=True, eq=False)
class PastState:
    """Arrays of N items, learnt from the interactions strictly before a time.

    Attributes:
        factors: (N, 32) item factors of the user-item matrix.
        neighbours: (N, K) int32 co-occurring items, padded with −1.
        weights: (N, K) float32 weights of the co-occurrences.
        counts: (N,) number of interactions of each item.
    """

    factors: QuantisedVectors
    neighbours: Array
    weights: Array
    counts: Array


_MADE: WeakKeyDictionary[Dataset, dict[int, PastState]] = WeakKeyDictionary()


def past_state(dataset: Dataset, until: int) -> PastState:
    """Return the state learnt from the dataset's interactions strictly before ``until`` (microseconds).

    The state is cached for as long as the dataset exists.
    """
    made = _MADE.setdefault(dataset, {})
    if until not in made:
        made[until] = _learnt(earlier(dataset.history, until), dataset.n_items)
    return made[until]


def earlier(history: History, until: int) -> History:
    """Return the interactions strictly before a time (microseconds)."""
    kept = np.asarray(history.times) < until
    offsets = np.concatenate([[0], np.cumsum(kept)])[history.offsets]
    return History(offsets.astype(np.int64), np.asarray(history.items)[kept], np.asarray(history.times)[kept])


def _learnt(history: History, count: int) -> PastState:
    counts = np.bincount(history.items, minlength=count)
    if not len(history.items):
        nothing = np.zeros((count, 0), np.int32)
        return PastState(
            QuantisedVectors(np.zeros((count, WIDTH), np.int8)), nothing, nothing.astype(np.float32), counts
        )
    first, second, weight = symmetric_pairs(history, WINDOW, STEP_DECAY, count)
    weight = weight / np.sqrt(counts[first] * counts[second] + SHRINKAGE)
    neighbours, weights = strongest(first, second, weight, count, NEIGHBOURS)
    return PastState(
        QuantisedVectors.of(item_factors(history, count, WIDTH)),
        neighbours.astype(np.int32),
        weights.astype(np.float32),
        counts,
    )


def cut_times(history: History, start: int, refreshes: int, until: int) -> Array:
    """Return the cutoff times (microseconds), ascending, at which :class:`PastState` is learnt.

    The first cutoff is the time of the first interaction in the training period. Further cutoffs, the refreshes,
    follow. If the period has no interactions, ``until`` is the only cutoff.

    Args:
        history: interactions.
        start: start of the training period (microseconds).
        refreshes: number of refreshes. Equally many interactions lie between successive cutoffs, and the last refresh
            is at ``until``.
        until: end of the training period (microseconds).
    """
    times = np.asarray(history.times)
    times = np.sort(times[(times >= start) & (times < until)])
    if not len(times):
        return np.array([until], dtype=np.int64)
    places = np.arange(refreshes) * len(times) // max(refreshes, 1)
    return np.unique(np.append(times[places], until)).astype(np.int64)
