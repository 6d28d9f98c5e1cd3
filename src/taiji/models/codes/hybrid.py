"""Residual k-means followed by a finite scalar quantiser of the residual (QARM V2, arXiv 2602.08559; OneMall, arXiv
2601.21770).

The coarse levels are clusters, which decoders learn well. The last level has to distinguish the items within a cluster.
There, a learnt codebook leaves many collisions, whereas a grid uses all of its cells.
"""

from __future__ import annotations

from math import prod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from taiji.core.settings import Settings as Base
from taiji.models.codes.coder import Coder
from taiji.models.codes.fsq import FSQ, FSQSettings, Grid
from taiji.models.codes.residual_kmeans import ResidualKMeans, ResidualKMeansSettings, residual_codes

Array = NDArray[Any]


class HybridSettings(Base):
    """Settings of :class:`Hybrid`."""

    coarse: PositiveInt = 2
    """Number of levels of residual k-means; the grid is one further level."""
    size: PositiveInt = 256
    """Number of codes per level of k-means."""
    grid: Grid = (2,) * 8
    """Number of levels of each direction of the last code. The product of these numbers is the number of cells of the
    last code."""
    iterations: PositiveInt = 25
    """Number of rounds of k-means per level."""


class Hybrid(Coder):
    """Coder that adds one level of :class:`FSQ` to :class:`ResidualKMeans`. With a grid of one cell, it equals residual
    k-means."""

    Settings: ClassVar[type[Base]] = HybridSettings
    settings: HybridSettings

    def __init__(self, settings: HybridSettings | None = None) -> None:
        super().__init__(settings)
        s = self.settings
        self.clusters = ResidualKMeans(ResidualKMeansSettings(levels=s.coarse, size=s.size, iterations=s.iterations))
        self.cells = FSQ(FSQSettings(levels=1, size=prod(s.grid), grid=s.grid))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Numbers of clusters of the coarse levels, followed by the number of cells of the grid."""
        return self.clusters.sizes + self.cells.sizes

    @property
    def dimension(self) -> int:
        """Width of the vectors."""
        return self.clusters.dimension

    def learn(self, vectors: Array, seed: int, device: str) -> None:
        """Fit the clusters to the vectors, then the grid to the residuals."""
        self.clusters.learn(vectors, seed, device)
        self.cells.learn(self._split(vectors)[1], seed, device)

    def _split(self, vectors: Array) -> tuple[Array, Array]:
        return residual_codes(vectors - self.clusters.mean, self.clusters.codebooks)

    def assign(self, vectors: Array) -> Array:
        """Return the clusters of each vector, followed by the cell of its residual."""
        codes, residual = self._split(vectors)
        return np.concatenate([codes, self.cells.assign(residual)], axis=1)

    def reconstruct(self, codes: Array) -> Array:
        """Return the sum of the clusters' centroids and the vector of the cell."""
        coarse, fine = codes[:, : self.settings.coarse], codes[:, self.settings.coarse :]
        out = self.clusters.reconstruct(coarse)
        return out + self.cells.reconstruct(fine) if fine.shape[1] else out

    def weights(self) -> dict[str, Array]:
        """Return the weights of both parts."""
        parts = {"clusters": self.clusters, "cells": self.cells}
        return {f"{name}.{key}": value for name, part in parts.items() for key, value in part.weights().items()}

    def restore(self, weights: dict[str, Array]) -> None:
        """Restore both parts from :meth:`weights`."""
        for name, part in (("clusters.", self.clusters), ("cells.", self.cells)):
            part.restore({key.removeprefix(name): value for key, value in weights.items() if key.startswith(name)})
