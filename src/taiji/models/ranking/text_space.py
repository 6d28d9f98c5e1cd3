"""A catalogue's text vectors made comparable: centred, partly whitened, quantised; and their map to the log's item factors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from taiji.nn.quantised_vectors import QuantisedVectors, exact_product

Array = NDArray[Any]
WIDTH = 128
"""Directions of text that are kept, those in which the catalogue varies most."""
WHITENING = 0.5
"""Power of the variances that a direction is divided by the root of: 1 makes all directions equal, which blows up noise; 0 none."""
ENOUGH = 5
"""Interactions from which on an item's factors are believed when the map is fitted."""
ITEMS_PER_COMPONENT = 20
"""Items per component of the text: a handful of items would be told apart by heart."""
RIDGE = 10.0
"""Penalty of the map, in items."""


@dataclass(frozen=True, eq=False)
class TextSpace:
    """Whitening that was learnt from a catalogue.

    Attributes:
        centre: (d,). axes: (d, k), principal directions, each divided by a power of its variance.
        components: (d, c), the first principal directions, scaled so that the first varies by 1.
    """

    centre: Array
    axes: Array
    components: Array

    @classmethod
    def empty(cls) -> Self:
        """Return a space without directions."""
        return cls(np.zeros(0), np.zeros((0, 0)), np.zeros((0, 0)))

    @classmethod
    def fit(cls, vectors: Array, components: int) -> Self:
        """Learn from a catalogue's vectors (n, d), of which zero rows do not count."""
        known = vectors[np.abs(vectors).max(axis=1, initial=0.0) > 0].astype(np.float64)
        if len(known) < 2:
            return cls.empty()
        centre = known.mean(axis=0)
        variances, directions = np.linalg.eigh(np.cov(known.T, bias=True))
        variances, directions = variances[::-1], directions[:, ::-1]
        kept = min(WIDTH, int((variances > variances[0] * 1e-6).sum()))
        if variances[0] <= 0 or not kept:
            return cls.empty()
        # The sign of a direction is arbitrary; its largest entry is made positive.
        directions = directions * np.sign(directions[np.abs(directions).argmax(axis=0), np.arange(len(variances))])
        axes = directions[:, :kept] / variances[:kept] ** (WHITENING / 2)
        return cls(
            centre,
            axes,
            directions[:, : min(components, kept, len(known) // ITEMS_PER_COMPONENT)] / np.sqrt(variances[0]),
        )

    @property
    def width(self) -> int:
        """Directions; 0 where there is no text to speak of."""
        return int(self.axes.shape[1])

    def place(self, vectors: Array) -> tuple[QuantisedVectors, Array]:
        """Return the places of texts (n, d), and their components (n, c) float32; zero for a blank text.

        Each row is the same bytes whatever other texts are placed with it.
        """
        known = np.abs(vectors).max(axis=1, initial=0.0, keepdims=True) > 0
        centred = np.where(known, vectors.astype(np.float64) - self.centre, 0.0)
        return (
            QuantisedVectors.of(exact_product(centred, self.axes)),
            exact_product(centred, self.components).astype(np.float32),
        )

    def mapped(self, vectors: QuantisedVectors, weights: Array) -> QuantisedVectors:
        """Return places of texts in the space of the item factors, by weights (k, f)."""
        return QuantisedVectors.of(exact_product(vectors.unit(), weights))

    def tensors(self) -> dict[str, Array]:
        """Return the arrays."""
        return {"centre": self.centre, "axes": self.axes, "directions": self.components}

    @classmethod
    def restore(cls, tensors: Mapping[str, Array]) -> Self:
        """Take back what :meth:`tensors` returned."""
        return cls(tensors["centre"], tensors["axes"], tensors["directions"])


def to_collaborative(texts: QuantisedVectors, factors: QuantisedVectors, counts: Array) -> Array:
    """Return the ridge map (k, f) from texts to item factors, fitted on the items that have both and enough interactions.

    Args:
        texts: (n, k). factors: (n, f). counts: (n,) interactions.
    """
    known = (counts >= ENOUGH) & (texts.inverse_lengths > 0) & (factors.inverse_lengths > 0)
    inputs, targets = texts.take(np.flatnonzero(known)).unit(), factors.take(np.flatnonzero(known)).unit()
    if not len(inputs):
        return np.zeros((texts.codes.shape[1], factors.codes.shape[1]))
    targets = targets - targets.mean(axis=0)
    penalised = inputs.T @ inputs + RIDGE * np.eye(inputs.shape[1])
    return np.linalg.solve(penalised, inputs.T @ targets)  # type: ignore[no-any-return]
