"""Retrieval by similar items: each of the user's recent items votes for its neighbours."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from taiji.core.component import NO_ITEM, Requests, Slate
from taiji.data.history import History
from taiji.models.retrieval.retriever import CatalogueRetriever
from taiji.models.retrieval.settings import RetrieverSettings

Array = NDArray[Any]


class NeighbourSettings(RetrieverSettings):
    """Settings of retrievers based on each item's neighbours."""

    neighbours: PositiveInt = 100
    """Number of neighbours kept per item."""
    place_decay: float = Field(default=0.8, gt=0, le=1)
    """Factor by which an interaction's vote is multiplied once for every newer interaction in the history."""


class NeighbourRetriever(CatalogueRetriever):
    """Base class of retrievers based on each item's neighbours. A model implements :meth:`similarities`."""

    settings: NeighbourSettings

    @abstractmethod
    def similarities(self, history: History) -> tuple[Array, Array, Array]:
        """Return the arrays ``item``, ``neighbour`` and ``weight``, each (P,), of distinct pairs with weights above
        0."""

    def learn(self, history: History, seed: int, device: str | None) -> None:
        """Keep the nearest neighbours of each item."""
        found = strongest(*self.similarities(history), len(self.places), self.settings.neighbours)
        self.restore(dict(zip(("neighbours", "similarities"), found)), device)

    def weights(self) -> dict[str, Array]:
        """Return the neighbours (N, K) of each item, padded with −1, and their weights (N, K)."""
        return {"neighbours": self._neighbours, "similarities": self._weights}

    def restore(self, weights: dict[str, Array], device: str | None) -> None:
        """Restore neighbours and weights."""
        self._neighbours, self._weights = weights["neighbours"], weights["similarities"]

    def scores(self, requests: Requests) -> Array:
        """Return the sum of the recent items' votes for each item (B, N); −inf for items without votes."""
        flat, votes = self._votes(requests)
        count = len(self.places)
        total = np.bincount(flat, votes, minlength=len(requests) * count).reshape(len(requests), count)
        return np.where(total > 0, np.round(total, 12), -np.inf)

    def room(self, k: int) -> int:
        """Return the number of items, so that :meth:`best` serves every request."""
        return len(self.places)

    def best(self, requests: Requests, k: int) -> Slate:
        """Return the ``k`` items with the most votes; items without votes are left out."""
        flat, votes = self._votes(requests)
        count = len(self.places)
        keys, inverse = np.unique(flat, return_inverse=True)
        total = np.round(np.bincount(inverse, votes, minlength=len(keys)), 12)
        row, item = keys // count, keys % count
        order = np.lexsort((item, -total, row))
        row, item, total = row[order], item[order], total[order]
        place = np.arange(len(row)) - np.searchsorted(row, row)
        kept = place < k
        items, scores = np.full((len(requests), k), NO_ITEM), np.zeros((len(requests), k))
        items[row[kept], place[kept]], scores[row[kept], place[kept]] = item[kept], total[kept]
        return Slate(items, scores)

    def _votes(self, requests: Requests) -> tuple[Array, Array]:
        """Return the target (V,) of each vote, as request index · number of items + item, and the vote's weight
        (V,)."""
        items, _ = self.recent(requests)
        votes = self.settings.place_decay ** np.arange(items.shape[1])
        row, place = np.nonzero(items >= 0)
        voters = items[row, place]
        neighbours = self._neighbours[voters]
        votes = votes[place][:, None] * self._weights[voters]
        there = neighbours >= 0
        return (row[:, None] * len(self.places) + neighbours)[there], votes[there]


def strongest(items: Array, neighbours: Array, weights: Array, count: int, k: int) -> tuple[Array, Array]:
    """Return the ``k`` pairs with the largest weights for each item. Ties go to the neighbour with the smaller id.

    Args:
        items, neighbours, weights: (P,) item, neighbour and weight of each pair.
        count: number of items N.
        k: number of pairs kept per item.

    Returns:
        (N, K) int64 neighbours, padded with −1, and (N, K) float64 weights, padded with 0, with K ≤ k.
    """
    if len(items) > k * count:
        kept = _among_the_heaviest(items, weights, count, k)
        items, neighbours, weights = items[kept], neighbours[kept], weights[kept]
    order = np.lexsort((neighbours, -weights, items))
    items, neighbours, weights = items[order], neighbours[order], weights[order]
    place = np.arange(len(items)) - np.searchsorted(items, items)
    width = min(k, int(place.max(initial=-1)) + 1)
    found, strength = np.full((count, width), -1, dtype=np.int64), np.zeros((count, width))
    kept = place < width
    found[items[kept], place[kept]] = neighbours[kept]
    strength[items[kept], place[kept]] = weights[kept]
    return found, strength


def _among_the_heaviest(items: Array, weights: Array, count: int, k: int) -> Array:
    """Return a mask (P,) of the pairs whose weight is at least the k-th largest weight of their item. This leaves few
    pairs to sort."""
    order = np.argsort(items, kind="stable") if (np.diff(items) < 0).any() else np.arange(len(items))
    by_item, bounds = weights[order], np.searchsorted(items[order], np.arange(count + 1))
    least = np.full(count, -np.inf)
    for item in np.flatnonzero(np.diff(bounds) > k):
        own = by_item[bounds[item] : bounds[item + 1]]
        least[item] = np.partition(own, len(own) - k)[len(own) - k]
    kept: Array = weights >= least[items]
    return kept
