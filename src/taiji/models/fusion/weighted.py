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
    """Return the predictions of the given tasks, (B, M) each, in the order of ``tasks``.

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
    """Base class of fusions with a weight per task.

    The score never falls as a prediction with a positive weight rises.

    Args:
        weights: weight by task, not 0; predictions of other tasks are ignored.

    Raises:
        ConfigError: there is no weight, or a weight is 0 or not finite.
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
    """Fusion by Σ weight · log prediction, which gives the same order as Π prediction^weight."""

    def fuse(self, predictions: Predictions, requests: Requests) -> Array:
        """Return scores (B, M)."""
        return np.asarray(
            sum(weight * np.log(np.maximum(values, SMALLEST)) for weight, values in self._values(predictions))
        )


class RankAverage(WeightedFusion):
    """Fusion by Σ weight · relative rank of the prediction among the request's candidates.

    The relative rank is the share of the other candidates that have a lower prediction, where ties count one half. The
    predictions need not have a common scale. A NaN prediction (padding) has rank 0 and does not count as a candidate.
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
    """Return each value's relative rank in its row (B, M): the share of the row's other finite values that are lower.

    Ties count one half. NaN, and the only finite value of a row, have rank 0.
    """
    known = np.isfinite(values)
    filled = np.where(known, values, -np.inf)
    ordered = np.sort(filled, axis=1)
    rows = np.arange(len(values))[:, None]
    width = values.shape[1]
    # One search covers all rows: values are replaced by ranks, and the ranks of a row exceed those of the row before.
    distinct, flat = np.unique(filled, return_inverse=True)
    codes = flat.reshape(values.shape) + rows * (len(distinct) + 1)
    places = np.sort(codes, axis=1).ravel()
    below = np.searchsorted(places, codes, side="left") - rows * width
    upto = np.searchsorted(places, codes, side="right") - rows * width
    padding = (~np.isfinite(ordered)).sum(axis=1, keepdims=True)
    others = known.sum(axis=1, keepdims=True) - 1
    share = (below - padding + (upto - below - 1) / 2) / np.maximum(others, 1)
    return np.where(known & (others > 0), share, 0.0)
