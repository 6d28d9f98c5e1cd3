"""The front of a training run: each batch's mean rewards are a point, and the volume dominated by the points so far is logged.

A batch's means are noisy, and the best of many noisy points lies outside the policy's own front: use the volume to watch a run, and to compare runs
of equal length and batch size.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from taiji.core.errors import ConfigError

logger = logging.getLogger(__name__)
LARGEST = 3
"""Rewards up to which the volume is computed: its time grows as points ** (rewards - 1)."""


def hypervolume(points: np.ndarray, reference: Sequence[float]) -> float:
    """Volume that points (N, K) dominate above ``reference`` (K,), all coordinates to be maximised.

    Exact, in slices along the last coordinate: N log N steps for two rewards, N^2 log N for three.
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
    """Points of mean rewards that no other point of the run dominates.

    Args:
        weights: (K,) numbers in ``reward_weights``: rewards of weight zero are left out, penalties count downwards.
        reference: (K,) point above which volume is measured, in the rewards' own units; None is the first batch's means.

    Attributes:
        points: (n, rewards that are weighed), penalties with their sign turned.
    """

    def __init__(self, weights: Sequence[float], reference: Sequence[float] | None = None) -> None:
        signs = np.sign(np.asarray(weights, dtype=np.float64))
        if reference is not None and (len(reference) != len(signs) or not np.isfinite(reference).all()):
            raise ConfigError(
                "The reference point of the front does not fit the rewards.",
                where="front_reference",
                expected=f"{len(signs)} finite numbers, one a reward",
                found=str(list(reference)),
            )
        self.numbers: list[int] = np.flatnonzero(signs).tolist()
        self._signs = signs[self.numbers]
        self.reference = None if reference is None else self._signs * np.asarray(reference)[self.numbers]
        self.points = np.zeros((0, len(self.numbers)))
        self._volume = 0.0

    def add(self, means: np.ndarray) -> dict[str, float]:
        """Add a batch's mean rewards (K,); return what is logged: ``hypervolume`` and ``points``.

        A batch in which a reward has no values (NaN) is not a point. Fewer than two rewards have no front.
        """
        point = self._signs * means[self.numbers]
        if len(self.numbers) < 2:
            return {}
        if np.isfinite(point).all():
            if self.reference is None:
                self.reference = point
                logger.info("The front's volume is measured above the first batch's mean rewards, %s.", point.tolist())
            if not (self.points >= point).all(1).any():
                self.points = np.concatenate([self.points[~(self.points <= point).all(1)], point[None]])
                self._measure()
        found = {"points": float(len(self.points))}
        return found | {"hypervolume": self._volume} if len(self.numbers) <= LARGEST else found

    def _measure(self) -> None:
        if self.reference is not None and len(self.numbers) <= LARGEST:
            self._volume = hypervolume(self.points, self.reference)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {
            "reference": None if self.reference is None else self.reference.tolist(),
            "points": self.points.tolist(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Restore a checkpoint's state; a given reference point is kept."""
        if self.reference is None and state["reference"] is not None:
            self.reference = np.asarray(state["reference"])
        self.points = np.asarray(state["points"], dtype=np.float64).reshape(-1, len(self.numbers))
        self._measure()
