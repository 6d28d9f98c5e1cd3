"""Baseline fusions: a weighted sum, a weighted product, and a weighted sum of ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taiji.core.component import DatasetFuser, Fuser, Predictions, Requests
from taiji.core.errors import ConfigError, InputError

Array = NDArray[Any]
SMALLEST = 1e-9
"""Lower bound that is applied to predictions before their logarithm is taken."""


def weighed(predictions: Predictions, tasks: Sequence[str]) -> list[Array]:
    """Return the predictions (B, M) to be fused, in the order of ``tasks``.

    Raises:
        InputError: a prediction is missing.
    """
    missing = [task for task in tasks if task not in predictions]
    if missing:
        raise InputError(
            "A prediction to be fused is missing.",
            where="predictions",
            expected=", ".join(tasks),
            found=", ".join(predictions) or "none",
        )
    return [np.asarray(predictions[task], np.float64) for task in tasks]


class WeightedFusion:
    """Base class of fusions with a weight per task. With a positive weight, the score never falls as the prediction
    rises.

    Args:
        weights: weight by task, not 0; predictions of other tasks are ignored.

    Raises:
        ConfigError: there is no weight, or one is 0 or not finite.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        self.weights = dict(weights)
        if not self.weights or any(not np.isfinite(w) or w == 0 for w in self.weights.values()):
            raise ConfigError(
                "The fusion has no weight, or a weight that is 0 or not finite.",
                where="weights",
                expected="finite numbers other than 0",
                found=str(self.weights),
            )

    def _values(self, predictions: Predictions) -> list[tuple[float, Array]]:
        values = weighed(predictions, tuple(self.weights))
        return list(zip(self.weights.values(), values))


class LinearFusion(WeightedFusion):
    """Fusion by Σ weight · prediction."""

    def fuse(self, predictions: Predictions, requests: Requests) -> Array:
        """Return scores (B, M)."""
        return np.asarray(sum(weight * values for weight, values in self._values(predictions)))


class LogLinearFusion(WeightedFusion):
    """Fusion by Σ weight · log prediction, which orders like Π prediction^weight."""

    def fuse(self, predictions: Predictions, requests: Requests) -> Array:
        """Return scores (B, M)."""
        return np.asarray(
            sum(weight * np.log(np.maximum(values, SMALLEST)) for weight, values in self._values(predictions))
        )


class RankAverage(WeightedFusion):
    """Fusion by Σ weight · relative rank: the share of the request's other candidates with a lower prediction, where
    ties count one half.

    No common scale is needed. A NaN prediction (padding) is below all others and does not count as a candidate.
    """

    def fuse(self, predictions: Predictions, requests: Requests) -> Array:
        """Return scores (B, M)."""
        return np.asarray(sum(weight * exceeded(values) for weight, values in self._values(predictions)))


class BesideMerge:
    """Weighted sum of two relative ranks: the rank by a fusion of the ranker's predictions, and the rank by the merge
    score of the retrievers.

    Args:
        fuser: fusion of the predictions.
        weight, merge_weight: weight of the ranks by the fusion, and weight of the ranks by the merge score.
    """

    def __init__(self, fuser: Fuser, weight: float, merge_weight: float) -> None:
        self.fuser = fuser
        self.ranks = RankAverage({"fused": weight, "merged": merge_weight})

    def bound_to(self, dataset: Any) -> BesideMerge:
        """Return a copy whose fusion looks up users and items in another dataset."""
        made = copy(self)
        made.fuser = self.fuser.bound_to(dataset) if isinstance(self.fuser, DatasetFuser) else self.fuser
        return made

    def fuse(self, predictions: Predictions, requests: Requests) -> Array:
        """Return scores (B, M)."""
        parts = {"fused": self.fuser.fuse(predictions, requests), "merged": predictions["merged"]}
        return self.ranks.fuse(parts, requests)


def exceeded(values: Array) -> Array:
    """Return each value's relative rank in its row (B, M): the share of the other finite values below it, with ties as
    one half.

    NaN, and the only finite value of a row, get 0.
    """
    known = np.isfinite(values)
    filled = np.where(known, values, -np.inf)
    ordered = np.sort(filled, axis=1)
    rows = np.arange(len(values))[:, None]
    width = values.shape[1]
    # One search over all rows: the values of each row are replaced by ranks and shifted past those of the previous row.
    distinct, flat = np.unique(filled, return_inverse=True)
    codes = flat.reshape(values.shape) + rows * (len(distinct) + 1)
    places = np.sort(codes, axis=1).ravel()
    below = np.searchsorted(places, codes, side="left") - rows * width
    upto = np.searchsorted(places, codes, side="right") - rows * width
    padding = (~np.isfinite(ordered)).sum(axis=1, keepdims=True)
    others = known.sum(axis=1, keepdims=True) - 1
    share = (below - padding + (upto - below - 1) / 2) / np.maximum(others, 1)
    return np.where(known & (others > 0), share, 0.0)
