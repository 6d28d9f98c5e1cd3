"""EASE: linear item-item model with a zero diagonal, in closed form (Steck, WWW 2019)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from taiji.core.component import Requests
from taiji.data.history import History
from taiji.models.retrieval.item_knn import interactions
from taiji.models.retrieval.retriever import CatalogueRetriever
from taiji.models.retrieval.settings import RetrieverSettings

Array = NDArray[Any]


class EASESettings(RetrieverSettings):
    """Settings of :class:`EASE`."""

    history: PositiveInt = 500
    """Number of most recent interactions of the user that the model reads."""
    regularisation: float = Field(default=200.0, gt=0)
    """Regularisation λ; the best value grows with the number of interactions."""
    items: PositiveInt = 20_000
    """Largest number of items that are modelled; the most popular ones are chosen. Training time grows with the cube of
    this number (several minutes for 20,000). Memory grows with its square (3.2 GB per matrix for 20,000, with several
    matrices at a time during training)."""


class EASE(CatalogueRetriever):
    """Retriever that scores items by ``x B``. x is the binary vector of a user's items, and B holds the coefficients of
    a ridge regression of each item on all others."""

    Settings = EASESettings
    settings: EASESettings

    def learn(self, history: History, seed: int, device: str | None) -> None:
        """Compute the weights of the most popular items in closed form."""
        counts = np.bincount(history.items, minlength=len(self.places))
        chosen = np.sort(np.argsort(-counts, kind="stable")[: min(self.settings.items, int((counts > 0).sum()))])
        gram = gram_of(interactions(history, len(self.places)), chosen)
        self.restore({"items": chosen, "weights": ease_weights(gram, self.settings.regularisation)}, device)

    def weights(self) -> dict[str, Array]:
        """Return the modelled items (M,) and the matrix B (M, M) of their weights."""
        return {"items": self.items, "weights": self.matrix}

    def restore(self, weights: dict[str, Array], device: str | None) -> None:
        """Restore items and weights."""
        self.items, self.matrix = weights["items"], weights["weights"]

    def scores(self, requests: Requests) -> Array:
        """Return ``x B`` for the modelled items and −inf for the others. If the history has no modelled item, all items
        get −inf."""
        items, _ = self.recent(requests)
        row, place = np.nonzero(items >= 0)
        known = np.zeros((len(requests), len(self.places)))
        known[row, items[row, place]] = 1.0
        out = np.full(known.shape, -np.inf)
        # Rounded, so that the order of tied items does not depend on the number of requests in a call.
        out[:, self.items] = np.round(known[:, self.items] @ self.matrix, 9)
        out[~known[:, self.items].any(axis=1)] = -np.inf
        return out


def gram_of(matrix: torch.Tensor, chosen: Array, block: int = 2048) -> Array:
    """Return the Gram matrix ``XᵀX`` (M, M), where X (U, M) holds the chosen columns of a sparse (U, N) matrix."""
    by_item = matrix.to_sparse_coo().t().coalesce().to_sparse_csr()
    out = np.empty((len(chosen), len(chosen)))
    for start in range(0, len(chosen), block):
        part = chosen[start : start + block]
        columns = torch.zeros(matrix.shape[1], len(part), dtype=torch.float64)
        columns[part, np.arange(len(part))] = 1.0
        out[:, start : start + block] = (by_item @ (matrix @ columns)).numpy()[chosen]
    return out


def ease_weights(gram: Array, regularisation: float) -> Array:
    """Return the weights B (M, M) of EASE from the Gram matrix ``XᵀX``: B_ij = −P_ij / P_jj off the diagonal and 0 on
    the diagonal, with P = (XᵀX + λ I)⁻¹."""
    inverse = np.linalg.inv(gram + regularisation * np.eye(len(gram)))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return weights
