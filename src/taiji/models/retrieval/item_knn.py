"""Item-kNN: items are similar if many users interacted with both."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from taiji.data.history import History
from taiji.models.retrieval.neighbours import NeighbourRetriever, NeighbourSettings, strongest

Array = NDArray[Any]
BLOCK = 4_000_000
"""Largest number of similarities held in memory at once."""


class ItemKNNSettings(NeighbourSettings):
    """Settings of :class:`ItemKNN`."""

    shrinkage: float = Field(default=10.0, ge=0)
    """Constant added to the denominator, so that pairs of items with few common users get low weights."""


class ItemKNN(NeighbourRetriever):
    """Retriever that weights a pair of items by the shrunk cosine |U_i ∩ U_j| / (√(|U_i| |U_j|) + shrinkage) of their
    sets of users (Sarwar et al., WWW 2001)."""

    Settings = ItemKNNSettings
    settings: ItemKNNSettings

    def similarities(self, history: History) -> tuple[Array, Array, Array]:
        """Return the pairs with the largest shrunk cosines of each item, computed in blocks of items."""
        count = len(self.places)
        matrix = interactions(history, count)
        users = torch.sparse.sum(matrix.to_sparse_coo(), 0).to_dense().double().numpy()
        by_item = matrix.to_sparse_coo().t().coalesce().to_sparse_csr()
        size = max(1, BLOCK // max(count, history.n_users))
        parts: list[tuple[Array, ...]] = []
        for start in range(0, count, size):
            block = np.arange(start, min(start + size, count))
            chosen = torch.zeros(count, len(block), dtype=torch.float64)
            chosen[block, np.arange(len(block))] = 1.0
            common = (by_item @ (matrix @ chosen)).numpy()
            common[block, np.arange(len(block))] = 0.0
            other, own = np.nonzero(common)
            item = block[own]
            weight = common[other, own] / (np.sqrt(users[other] * users[item]) + self.settings.shrinkage)
            nearest, strength = strongest(own, other, weight, len(block), self.settings.neighbours)
            row, place = np.nonzero(nearest >= 0)
            parts.append((block[row], nearest[row, place], strength[row, place]))
        return tuple(np.concatenate(values) for values in zip(*parts))  # type: ignore[return-value]


def interactions(history: History, count: int) -> torch.Tensor:
    """Return the binary user-item matrix (n_users, count) as a float64 CSR tensor."""
    users = np.repeat(np.arange(history.n_users), np.diff(history.offsets))
    pairs = np.unique(users * count + np.asarray(history.items, dtype=np.int64))
    offsets = np.searchsorted(pairs, np.arange(history.n_users + 1) * count)
    values = torch.ones(len(pairs), dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(
            torch.from_numpy(offsets),
            torch.from_numpy(pairs % count),
            values,
            (history.n_users, count),
            check_invariants=True,
        )
