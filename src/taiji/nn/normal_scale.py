"""Monotone map of any quantity to a scale on which its values are normally distributed."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
KNOTS = 129
"""Number of quantiles of the distribution that are stored."""


def scale_knots(values: Array) -> Array:
    """Return P knots (2, P) of the map: strictly ascending values, and for each the normal quantile of the share of
    ``values`` below it."""
    values = values[np.isfinite(values)]
    places = np.linspace(0, 1, KNOTS)
    at, first = np.unique(np.quantile(values, places), return_index=True)
    last = np.append(first[1:], KNOTS) - 1
    if len(at) == 1:  # all values are equal
        return np.array([[at[0], at[0] + 1.0], [0.0, 1.0]])
    half = 0.5 / len(values)
    share = np.clip((places[first] + places[last]) / 2, half, 1 - half)
    return np.stack([at, np.array([NormalDist().inv_cdf(float(place)) for place in share])])


def normal_scores(values: Array, knots: Array) -> Array:
    """Return the normal scores of values, by linear interpolation between the knots (2, P) and linear extrapolation
    beyond them."""
    at, score = knots
    place = np.clip(np.searchsorted(at, values, side="right") - 1, 0, len(at) - 2)
    slope = (score[place + 1] - score[place]) / (at[place + 1] - at[place])
    found = score[place] + slope * (values - at[place])
    return np.asarray(np.where(values < at[place + 1], np.minimum(found, score[place + 1]), found))
