"""Base of retrievers that turn a request into a vector and rank items by inner product."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from taiji.core.component import Requests
from taiji.models.retrieval.retriever import CatalogueRetriever

Array = NDArray[Any]
REQUESTS = 1024
"""Requests that go through a network at a time."""


class VectorRetriever(CatalogueRetriever):
    """A model implements :meth:`queries` and sets ``vectors``.

    Attributes:
        vectors: (N, d) float32, what an item is found by.
    """

    vectors: Array

    @abstractmethod
    def queries(self, requests: Requests) -> Array:
        """Return (B, d) float32, reading nothing at or after a request's time."""

    def scores(self, requests: Requests) -> Array:
        """Return inner products with all items."""
        query, table = torch.from_numpy(self.queries(requests)), torch.from_numpy(self.vectors)
        return (query @ table.T).double().numpy()


def in_blocks(count: int) -> list[slice]:
    """Return slices of at most :data:`REQUESTS` requests."""
    return [slice(at, at + REQUESTS) for at in range(0, count, REQUESTS)] or [slice(0, 0)]


def to_numpy(tensor: torch.Tensor) -> Array:
    """Return a tensor as a float32 array in memory."""
    return np.ascontiguousarray(tensor.detach().cpu().numpy().astype(np.float32))
