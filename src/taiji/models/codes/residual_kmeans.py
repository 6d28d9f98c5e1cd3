"""Residual k-means: each level encodes the residual of the previous levels (Chen et al. 2010; OneRec, QARM V2)."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from taiji.core.settings import Settings as Base
from taiji.models.codes.coder import Coder, CoderSettings
from taiji.models.codes.kmeans import k_means, means_of, nearest

Array = NDArray[Any]
MOST = 1 << 30
"""Largest number of rows per centroid in k-means. It is so large that all rows are used."""


class ResidualKMeansSettings(CoderSettings):
    """Settings of :class:`ResidualKMeans`."""

    iterations: PositiveInt = 25
    """Number of rounds of k-means per level."""


class ResidualKMeans(Coder):
    """Coder that applies k-means to the vectors, then to their residuals, and so on.

    The mean squared residual of the training vectors does not increase from level to level, because the centroids of a
    level are means of residuals, and each residual is assigned to its nearest centroid.
    """

    Settings: ClassVar[type[Base]] = ResidualKMeansSettings
    settings: ResidualKMeansSettings
    mean: Array
    codebooks: Array

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of codes of each level."""
        return (self.codebooks.shape[1],) * self.codebooks.shape[0]

    @property
    def dimension(self) -> int:
        """Width of the vectors."""
        return self.codebooks.shape[2]

    def learn(self, vectors: Array, seed: int, device: str) -> None:
        """Fit one codebook after the other."""
        s = self.settings
        self.mean = vectors.mean(axis=0).astype(np.float32)
        residual, books = vectors - self.mean, []
        for level in range(s.levels):
            book = k_means(residual, s.size, s.iterations, seed + level, most=MOST)
            book = means_of(residual, nearest(residual, book), book)
            residual = residual - book[nearest(residual, book)]
            books.append(book)
        self.codebooks = np.stack(books)

    def assign(self, vectors: Array) -> Array:
        """Return the index (N, L) of the centroid nearest to the residual of each level."""
        return residual_codes(vectors - self.mean, self.codebooks)[0]

    def reconstruct(self, codes: Array) -> Array:
        """Return the sum of the mean and the centroids that the codes denote."""
        out = np.tile(np.asarray(self.mean, np.float64), (len(codes), 1))
        for level, book in enumerate(self.codebooks[: codes.shape[1]]):
            out += book[codes[:, level]]
        return out

    def weights(self) -> dict[str, Array]:
        """Return the mean (d,) and the codebooks (L, K, d)."""
        return {"mean": self.mean, "codebooks": self.codebooks}

    def restore(self, weights: dict[str, Array]) -> None:
        """Restore the mean and the codebooks."""
        self.mean, self.codebooks = weights["mean"], weights["codebooks"]


def residual_codes(residual: Array, codebooks: Array, factors: Array | None = None) -> tuple[Array, Array]:
    """Encode vectors (N, w) with codebooks (L, K, w), and return codes (N, L) and the final residuals (N, w).
    ``factors`` (L, K) multiply the squared distances to the entries."""
    codes = np.zeros((len(residual), len(codebooks)), np.int64)
    for level, book in enumerate(codebooks):
        codes[:, level] = nearest(residual, book, None if factors is None else factors[level])
        residual = residual - book[codes[:, level]]
    return codes, residual
