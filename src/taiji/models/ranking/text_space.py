"""Text vectors of a catalogue, centred, partly whitened and quantised for comparison, and their map to the item factors of the log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from taiji.nn.quantised_vectors import QuantisedVectors, exact_product

Array = NDArray[Any]
WIDTH = 128
"""Number of directions kept: those in which the texts of the catalogue vary most."""
WHITENING = 0.5
"""Exponent p: each direction is divided by its standard deviation to the power p. 1 equalises all directions, which amplifies noise; 0 changes nothing."""
ENOUGH = 5
"""Smallest number of interactions with which an item is used to fit the map."""
ITEMS_PER_COMPONENT = 20
"""Number of items required per component of the text, since the components of a handful of items merely identify them."""
RIDGE = 10.0
"""Ridge penalty of the map, in numbers of items."""


@dataclass(frozen=True, eq=False)
class TextSpace:
    """Whitening learnt from a catalogue.

    Attributes:
        centre: (d,).
        axes: (d, k) principal directions, each divided by a power of its variance.
        components: (d, c) the first principal directions, scaled so that the first one has variance 1.
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
        """Learn from the vectors of a catalogue (n, d), ignoring zero rows."""
        known = vectors[np.abs(vectors).max(axis=1, initial=0.0) > 0].astype(np.float64)
        if len(known) < 2:
            return cls.empty()
        centre = known.mean(axis=0)
        variances, directions = np.linalg.eigh(np.cov(known.T, bias=True))
        variances, directions = variances[::-1], directions[:, ::-1]
        kept = min(WIDTH, int((variances > variances[0] * 1e-6).sum()))
        if variances[0] <= 0 or not kept:
            return cls.empty()
        # The sign of a direction is arbitrary, so its largest entry is made positive.
        directions = directions * np.sign(directions[np.abs(directions).argmax(axis=0), np.arange(len(variances))])
        axes = directions[:, :kept] / variances[:kept] ** (WHITENING / 2)
        return cls(
            centre,
            axes,
            directions[:, : min(components, kept, len(known) // ITEMS_PER_COMPONENT)] / np.sqrt(variances[0]),
        )

    @property
    def width(self) -> int:
        """Number of directions; 0 if there is practically no text."""
        return int(self.axes.shape[1])

    def place(self, vectors: Array) -> tuple[QuantisedVectors, Array]:
        """Return the positions of texts (n, d), and their components (n, c) float32; zero for a blank text.

        The result of a row does not depend on the other texts of the call, to the last bit.
        """
        known = np.abs(vectors).max(axis=1, initial=0.0, keepdims=True) > 0
        centred = np.where(known, vectors.astype(np.float64) - self.centre, 0.0)
        return (
            QuantisedVectors.of(exact_product(centred, self.axes)),
            exact_product(centred, self.components).astype(np.float32),
        )

    def mapped(self, vectors: QuantisedVectors, weights: Array) -> QuantisedVectors:
        """Return the positions of texts in the space of the item factors, by weights (k, f)."""
        return QuantisedVectors.of(exact_product(vectors.unit(), weights))

    def tensors(self) -> dict[str, Array]:
        """Return the arrays."""
        return {"centre": self.centre, "axes": self.axes, "directions": self.components}

    @classmethod
    def restore(cls, tensors: Mapping[str, Array]) -> Self:
        """Restore the space from :meth:`tensors`."""
        return cls(tensors["centre"], tensors["axes"], tensors["directions"])


def to_collaborative(texts: QuantisedVectors, factors: QuantisedVectors, counts: Array) -> Array:
    """Return the ridge map (k, f) from texts to item factors, fitted on the items that have both and enough interactions.

    Args:
        texts: (n, k).
        factors: (n, f).
        counts: (n,) numbers of interactions.
    """
    known = (counts >= ENOUGH) & (texts.inverse_lengths > 0) & (factors.inverse_lengths > 0)
    inputs, targets = texts.take(np.flatnonzero(known)).unit(), factors.take(np.flatnonzero(known)).unit()
    if not len(inputs):
        return np.zeros((texts.codes.shape[1], factors.codes.shape[1]))
    targets = targets - targets.mean(axis=0)
    penalised = inputs.T @ inputs + RIDGE * np.eye(inputs.shape[1])
    return np.linalg.solve(penalised, inputs.T @ targets)  # type: ignore[no-any-return]
