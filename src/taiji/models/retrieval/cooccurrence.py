"""Retriever by co-occurrence: items are related if they are close to each other in the same history."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from taiji.data.history import History
from taiji.models.retrieval.neighbours import NeighbourRetriever, NeighbourSettings

Array = NDArray[Any]


class CooccurrenceSettings(NeighbourSettings):
    """Settings of :class:`Cooccurrence`."""

    window: PositiveInt = 10
    """Largest distance, in interactions, at which two items of a history count as co-occurring."""
    step_decay: float = Field(default=0.8, gt=0, le=1)
    """Decay of weights with distance. A co-occurrence at distance s counts with this value to the power s − 1."""
    direction: Literal["both", "forward"] = "both"
    """`forward` lets an item vote only for items that followed it in a history. `both` lets it also vote for items that
    preceded it."""
    popularity_power: float = Field(default=0.5, ge=0, le=1)
    """The weight of a pair is divided by the product of both items' counts to this power: 0 leaves the weight
    unchanged, 0.5 normalises it as in the cosine."""


class Cooccurrence(NeighbourRetriever):
    """Retriever that counts pairs of items in the users' histories. Pairs are weighted by closeness, and their sums are
    divided by a power of the items' popularity."""

    Settings = CooccurrenceSettings
    settings: CooccurrenceSettings

    def similarities(self, history: History) -> tuple[Array, Array, Array]:
        """Return the pairs of items with their weights: decayed counts, divided by a power of the product of both
        items' counts."""
        count = len(self.places)
        pairs = symmetric_pairs if self.settings.direction == "both" else decayed_pairs
        first, second, weight = pairs(history, self.settings.window, self.settings.step_decay, count)
        popularity = np.bincount(history.items, minlength=count).astype(np.float64)
        return first, second, weight / (popularity[first] * popularity[second]) ** self.settings.popularity_power


def decayed_pairs(history: History, window: int, decay: float, count: int) -> tuple[Array, Array, Array]:
    """Return the ordered pairs of different items that co-occur in a history, with the earlier item first.

    Args:
        history: interactions.
        window: largest distance of a pair, in interactions.
        decay: base of the weight ``decay ** (s − 1)`` of a pair at distance s.
        count: number of items.

    Returns:
        first item, second item and summed weight, each (P,), without repeated pairs.
    """
    users = np.repeat(np.arange(history.n_users), np.diff(history.offsets))
    items = np.asarray(history.items, dtype=np.int64)
    first, second, weight = ([np.zeros(0, dtype)] for dtype in (np.int64, np.int64, np.float64))
    for step in range(1, window + 1):
        pair = (users[:-step] == users[step:]) & (items[:-step] != items[step:])
        first.append(items[:-step][pair])
        second.append(items[step:][pair])
        weight.append(np.full(int(pair.sum()), decay ** (step - 1)))
    return _summed(np.concatenate(first), np.concatenate(second), np.concatenate(weight), count)


def symmetric_pairs(history: History, window: int, decay: float, count: int) -> tuple[Array, Array, Array]:
    """Return the pairs of :func:`decayed_pairs` in both directions. Both directions of a pair get the sum of their
    weights."""
    first, second, weight = decayed_pairs(history, window, decay, count)
    return _summed(np.r_[first, second], np.r_[second, first], np.r_[weight, weight], count)


def _summed(first: Array, second: Array, weight: Array, count: int) -> tuple[Array, Array, Array]:
    from scipy.sparse import coo_matrix

    # The conversion to CSR sums repeated pairs without sorting all pairs.
    rows = coo_matrix((weight, (first, second)), shape=(count, count)).tocsr()
    rows.sort_indices()
    return np.repeat(np.arange(count), np.diff(rows.indptr)), rows.indices.astype(np.int64), rows.data
