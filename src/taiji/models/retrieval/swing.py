"""Swing: two items are similar if many pairs of users interacted with both and have little else in common (Yang et al.,
arXiv 2010.05525)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from taiji.data.history import History, rows_and_places
from taiji.models.retrieval.neighbours import NeighbourRetriever, NeighbourSettings, strongest

Array = NDArray[Any]


class SwingSettings(NeighbourSettings):
    """Settings of :class:`Swing`."""

    smoothing: float = Field(default=1.0, gt=0)
    """α, added to the number of items that two users have in common."""
    users: PositiveInt = 200
    """Largest number of users read per item. If an item has more users, they are sorted by id and taken at equal steps.
    The computing time grows with the square of this number."""


class Swing(NeighbourRetriever):
    """Retriever that weights a pair of items i, j by the sum of w_u w_v / (α + |I_u ∩ I_v|) over all pairs of users u,
    v who both interacted with i and j. I_u is the set of u's items, and w_u = |I_u|^(−½).

    Unlike in co-occurrence, two users with many items in common contribute little to the similarity of any two of these
    items.
    """

    Settings = SwingSettings
    settings: SwingSettings

    def similarities(self, history: History) -> tuple[Array, Array, Array]:
        """Return the pairs with the largest Swing weights of each item."""
        s, count = self.settings, len(self.places)
        return swing(history, count, smoothing=s.smoothing, users=s.users, neighbours=s.neighbours)


def swing(
    history: History, count: int, *, smoothing: float = 1.0, users: int = 200, neighbours: int = 100
) -> tuple[Array, Array, Array]:
    """Return the pairs with the largest Swing weights of each item.

    Args:
        history: interactions of the training log.
        count: number of items in the catalogue.
        smoothing: α, added to the number of common items of two users.
        users: largest number of users read per item.
        neighbours: number of strongest pairs kept per item.

    Returns:
        item, other item and weight, each (P,), without repeated pairs.
    """
    owners = np.repeat(np.arange(history.n_users), np.diff(history.offsets))
    taken = np.unique(owners * count + np.asarray(history.items, dtype=np.int64))
    owners, items = taken // count, taken % count
    starts = np.searchsorted(owners, np.arange(history.n_users + 1))
    own = (starts[1:] - starts[:-1]).clip(min=1) ** -0.5
    by_item = np.argsort(items, kind="stable")
    item_starts = np.searchsorted(items[by_item], np.arange(count + 1))
    parts = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    for item in np.flatnonzero(np.diff(item_starts) > 1):
        chosen = owners[by_item[item_starts[item] : item_starts[item + 1]]]
        chosen = chosen[np.unique(np.linspace(0, len(chosen) - 1, min(users, len(chosen))).astype(np.int64))]
        row, place = rows_and_places(starts[chosen + 1] - starts[chosen])
        columns, inverse = np.unique(items[starts[chosen][row] + place], return_inverse=True)
        took = np.zeros((len(chosen), len(columns)))
        took[row, inverse] = 1.0
        pairs = own[chosen][:, None] * own[chosen] / (smoothing + took @ took.T)
        np.fill_diagonal(pairs, 0.0)
        weight = ((pairs @ took) * took).sum(axis=0) / 2
        there = (columns != item) & (weight > 0)
        found, strength = strongest(
            np.zeros(int(there.sum()), np.int64), columns[there], np.round(weight[there], 12), 1, neighbours
        )
        parts.append((np.full(found.shape[1], item), found[0], strength[0]))
    first, second, weight = (np.concatenate(column) for column in zip(*parts))
    return first, second, weight
