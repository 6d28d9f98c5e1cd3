"""The Pareto front of a training run. The mean rewards of each batch form one point, and the volume that the points so
far dominate is logged.

The means of a batch are noisy, and the best of many noisy points lies beyond the policy's true front. Use the volume to
monitor a run, and to compare runs of equal length and batch size.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from taiji.core.errors import ConfigError

logger = logging.getLogger(__name__)
LARGEST = 3
"""Largest number of rewards for which the volume is computed; the time grows as points ** (rewards - 1)."""


def hypervolume(points: np.ndarray, reference: Sequence[float]) -> float:
    """Return the volume that points (N, K) dominate above ``reference`` (K,), if all coordinates are maximised.

    The result is exact, computed in slices along the last coordinate: N log N steps for two rewards, N^2 log N for
    three.
    """
    low = np.asarray(reference, dtype=np.float64)
    return _volume(points[(points > low).all(1)] - low)


def _volume(points: np.ndarray) -> float:
    if not len(points):
        return 0.0
    if points.shape[1] == 1:
        return float(points.max())
    points = points[np.argsort(-points[:, -1], kind="stable")]
    heights = points[:, -1] - np.append(points[1:, -1], 0.0)
    if points.shape[1] == 2:
        return float(np.maximum.accumulate(points[:, 0]) @ heights)
    return float(sum(h * _volume(points[: n + 1, :-1]) for n, h in enumerate(heights) if h > 0))


class Front:
    """Points (mean rewards of a batch) that no other point of the run dominates.

    Args:
        weights: (K,) values of ``reward_weights``. Rewards of weight zero are left out, and a negative weight marks a
            penalty.
        reference: (K,) point above which the volume is measured, in the units of the rewards; None uses the means of
            the first batch in which every reward has values.

    Attributes:
        points: (n, number of weighted rewards), with the sign of penalties reversed.
    """

    def __init__(self, weights: Sequence[float], reference: Sequence[float] | None = None) -> None:
        signs = np.sign(np.asarray(weights, dtype=np.float64))
        if reference is not None and (len(reference) != len(signs) or not np.isfinite(reference).all()):
            raise ConfigError(
                "The reference point of the front does not match the rewards.",
                where="front_reference",
                expected=f"{len(signs)} finite numbers, one per reward",
                found=str(list(reference)),
            )
        self.numbers: list[int] = np.flatnonzero(signs).tolist()
        self._signs = signs[self.numbers]
        self.reference = None if reference is None else self._signs * np.asarray(reference)[self.numbers]
        self.points = np.zeros((0, len(self.numbers)))
        self._volume = 0.0

    def add(self, means: np.ndarray) -> dict[str, float]:
        """Add the mean rewards (K,) of a batch, and return the values to log: ``hypervolume`` and ``points``.

        A batch in which a reward has no values (NaN) adds no point. With fewer than two weighted rewards, the result is
        empty.
        """
        point = self._signs * means[self.numbers]
        if len(self.numbers) < 2:
            return {}
        if np.isfinite(point).all():
            if self.reference is None:
                self.reference = point
                logger.info(
                    "The volume of the front is measured above the mean rewards of the first batch, %s.", point.tolist()
                )
            if not (self.points >= point).all(1).any():
                self.points = np.concatenate([self.points[~(self.points <= point).all(1)], point[None]])
                self._measure()
        found = {"points": float(len(self.points))}
        return found | {"hypervolume": self._volume} if len(self.numbers) <= LARGEST else found

    def _measure(self) -> None:
        if self.reference is not None and len(self.numbers) <= LARGEST:
            self._volume = hypervolume(self.points, self.reference)

    def state(self) -> dict[str, Any]:
        """Return the state to store in a checkpoint."""
        return {
            "reference": None if self.reference is None else self.reference.tolist(),
            "points": self.points.tolist(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Restore the state of a checkpoint. A reference point that was given explicitly is kept."""
        if self.reference is None and state["reference"] is not None:
            self.reference = np.asarray(state["reference"])
        self.points = np.asarray(state["points"], dtype=np.float64).reshape(-1, len(self.numbers))
        self._measure()
