"""Space in which the text vectors of a catalogue are compared. They are centred, partly whitened and quantised.

:func:`to_collaborative` fits a map from these vectors to the item factors of the log.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from taiji.nn.quantised_vectors import QuantisedVectors, exact_product

Array = NDArray[Any]
WIDTH = 128
"""Largest number of principal directions kept."""
WHITENING = 0.5
"""Exponent p: each direction is divided by its standard deviation to the power p.

1 gives all directions the same variance, which amplifies noise; 0 changes nothing.
"""
ENOUGH = 5
"""Smallest number of interactions that an item needs to be used in the fit of :func:`to_collaborative`."""
ITEMS_PER_COMPONENT = 20
"""Number of items required per component. With fewer items, the components would merely identify single items."""
RIDGE = 10.0
"""Ridge penalty of :func:`to_collaborative`. Its unit is a number of items, because text vectors have length 1."""


@dataclass(frozen=True, eq=False)
class TextSpace:
    """Whitening of text vectors (d,), learnt from a catalogue.

    Attributes:
        centre: (d,) mean of the text vectors.
        axes: (d, k) principal directions, each divided by the standard deviation along it to the power
            :data:`WHITENING`.
        components: (d, c) first principal directions, scaled so that the texts have variance 1 along the first one.
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
        """Learn the space from text vectors (n, d), with at most ``components`` components. Zero rows are ignored."""
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
        """Number k of directions; 0 if there are fewer than two texts, or all texts are equal."""
        return int(self.axes.shape[1])

    def place(self, vectors: Array) -> tuple[QuantisedVectors, Array]:
        """Return the whitened and quantised vectors of texts (n, d), and the components of the texts (n, c) float32.

        Both are 0 for a blank text. To the last bit, they do not depend on the other texts of the call.
        """
        known = np.abs(vectors).max(axis=1, initial=0.0, keepdims=True) > 0
        centred = np.where(known, vectors.astype(np.float64) - self.centre, 0.0)
        return (
            QuantisedVectors.of(exact_product(centred, self.axes)),
            exact_product(centred, self.components).astype(np.float32),
        )

    def mapped(self, vectors: QuantisedVectors, weights: Array) -> QuantisedVectors:
        """Map whitened vectors of texts to item factors, with weights (k, f) from :func:`to_collaborative`."""
        return QuantisedVectors.of(exact_product(vectors.unit(), weights))

    def tensors(self) -> dict[str, Array]:
        """Return the arrays to save."""
        return {"centre": self.centre, "axes": self.axes, "directions": self.components}

    @classmethod
    def restore(cls, tensors: Mapping[str, Array]) -> Self:
        """Restore the space from :meth:`tensors`."""
        return cls(tensors["centre"], tensors["axes"], tensors["directions"])


def to_collaborative(texts: QuantisedVectors, factors: QuantisedVectors, counts: Array) -> Array:
    """Fit a ridge regression from texts to item factors, and return its weights (k, f).

    The regression uses the items that have a text, factors and at least :data:`ENOUGH` interactions.

    Args:
        texts: (n, k) whitened text vectors of the items.
        factors: (n, f) item factors.
        counts: (n,) number of interactions of each item.
    """
    known = (counts >= ENOUGH) & (texts.inverse_lengths > 0) & (factors.inverse_lengths > 0)
    inputs, targets = texts.take(np.flatnonzero(known)).unit(), factors.take(np.flatnonzero(known)).unit()
    if not len(inputs):
        return np.zeros((texts.codes.shape[1], factors.codes.shape[1]))
    targets = targets - targets.mean(axis=0)
    penalised = inputs.T @ inputs + RIDGE * np.eye(inputs.shape[1])
    return np.linalg.solve(penalised, inputs.T @ targets)  # type: ignore[no-any-return]
