"""Base class of retrievers that turn a request into a vector and rank items by inner product."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from taiji.core.component import NO_ITEM, Requests, Slate
from taiji.data.dataset import Dataset
from taiji.models.retrieval.retriever import CatalogueRetriever
from taiji.models.retrieval.vector_index import EXACT_BELOW, VectorIndex

Array = NDArray[Any]
SHARE = 80
"""In a catalogue of more than ``EXACT_BELOW`` items, the index is used if at most 1 / SHARE of the items are requested
and at most 1 / SHARE are hidden. Otherwise, every item is scored."""
REQUESTS = 1024
"""Number of requests that a network processes at a time."""


class VectorRetriever(CatalogueRetriever):
    """Retriever by inner products. A model implements :meth:`queries` and sets ``vectors``.

    Attributes:
        vectors: (N, d) float32 vectors of the items.
    """

    vectors: Array
    _indexed: tuple[Array, VectorIndex] | None = None

    @abstractmethod
    def queries(self, requests: Requests) -> Array:
        """Return query vectors (B, d) float32. No event at or after the time of a request may be read."""

    def scores(self, requests: Requests) -> Array:
        """Return the inner products (B, N) of queries and items. A request with a query of zeros (an unknown user) gets
        −inf for every item."""
        query = self.queries(requests)
        scores = (torch.from_numpy(query) @ torch.from_numpy(self.vectors).T).double().numpy()
        scores[~query.any(axis=1)] = -np.inf
        return scores  # type: ignore[no-any-return]

    def room(self, k: int) -> int:
        """Return the largest number of hidden items with which the index is used; −1 for a small catalogue or a large
        ``k``."""
        most = len(self.vectors) // SHARE
        return most if len(self.vectors) > EXACT_BELOW and k <= most else -1

    def best(self, requests: Requests, k: int) -> Slate:
        """Return the ``k`` nearest items of each request that the index finds. The index may miss some of the true
        nearest items."""
        query = self.queries(requests)
        items, _ = self.index.search(query, k)
        known: Array = np.any(query, axis=1, keepdims=True)
        there = (items != NO_ITEM) & known
        # Inner products are computed again in float64, because the order in which the index sums them depends on the
        # number of queries in a call.
        scores = np.einsum("bd,bkd->bk", query, self.vectors[items], dtype=np.float64)
        scores = np.where(there, scores, -np.inf)
        order = np.lexsort((items, -scores), axis=1)
        items, scores, there = (np.take_along_axis(values, order, axis=1) for values in (items, scores, there))
        return Slate(np.where(there, items, NO_ITEM), np.where(there, scores, 0.0))

    def bound_to(self, users: Dataset) -> Self:
        """Return a copy for other users. For a large catalogue, the index is built now, so that all copies share it."""
        made = super().bound_to(users)
        if len(self.vectors) > EXACT_BELOW:
            self._indexed = made._indexed = (self.vectors, self.index)
        return made

    @property
    def index(self) -> VectorIndex:
        """Index of the vectors, built on first use."""
        held = self._indexed
        if held is None or held[0] is not self.vectors:
            made = VectorIndex(self.vectors.shape[1])
            made.add(np.arange(len(self.vectors)), self.vectors)
            held = self._indexed = (self.vectors, made)
        return held[1]


def in_blocks(count: int) -> list[slice]:
    """Return slices of at most :data:`REQUESTS` requests."""
    return [slice(at, at + REQUESTS) for at in range(0, count, REQUESTS)] or [slice(0, 0)]


def to_numpy(tensor: torch.Tensor) -> Array:
    """Return a tensor as a float32 array in host memory."""
    return np.ascontiguousarray(tensor.detach().cpu().numpy().astype(np.float32))
