"""Formulas that several mechanisms share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]


def sigmoid(values: ArrayLike) -> Array:
    """Return 1 / (1 + e^−x), without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * np.asarray(values, dtype=np.float64))))


def logit(chance: ArrayLike) -> Array:
    """Return log(p / (1 − p))."""
    chance = np.asarray(chance, dtype=np.float64)
    return np.asarray(np.log(chance) - np.log1p(-chance))


def unit(vectors: Array) -> Array:
    """Return vectors (…, K) scaled to length 1."""
    return np.asarray(vectors / np.maximum(np.sqrt(np.square(vectors).sum(axis=-1, keepdims=True)), 1e-12))


def dot(left: Array, right: Array) -> Array:
    """Return dot products of vectors (…, K), computed row by row, so that a result does not depend on the batch."""
    return np.einsum("...k,...k->...", left, right)


def blend(first: Array, second: Array, share: float) -> Array:
    """Return (1 − share) · first + share · second, scaled to length 1; vectors (…, K)."""
    return unit((1 - share) * first + share * second)


def drift(vectors: Array, centre: Array, noise: Array, *, pull: float, spread: float, step: float) -> Array:
    """Advance unit vectors (…, K) by one step of an Ornstein–Uhlenbeck process on the sphere.

    A vector moves ``pull`` · step of the way to the centre and ``spread`` · √step in a random tangent direction, and is
    then scaled to length 1. ``noise`` (…, K) is standard normal; it is divided by √K, its approximate length.
    """
    moved = vectors + min(pull * step, 1.0) * (centre - vectors)
    tangent = noise - dot(noise, vectors)[..., None] * vectors
    return unit(moved + spread * np.sqrt(step / vectors.shape[-1]) * tangent)


def view_chance(place: Array, position: float) -> Array:
    """Return the probability (L,) that each place, counted from 0, is viewed: (1 + place)^−position.

    ``position`` is the strength of the position bias.
    """
    return np.asarray((1.0 + place) ** -position)


def log_normal_mean(location: ArrayLike, spread: float) -> Array:
    """Return the mean e^(location + spread² / 2) of a log-normal variable."""
    return np.asarray(np.exp(np.asarray(location, dtype=np.float64) + spread**2 / 2))
