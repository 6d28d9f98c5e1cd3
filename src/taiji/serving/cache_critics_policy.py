"""Learnt policy of the result cache: who loses least by an earlier list gets it first."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from taiji.core.errors import ConfigError
from taiji.models.policy.cache_critics import CacheCritics
from taiji.serving.cache_policies import Situation

LATEST = 1000
"""Requests among which a loss is small or large."""
DAY_US = 86_400_000_000
FEATURES = 6


def request_features(situation: Situation) -> NDArray[np.float64]:
    """Return (6,) the features of a request that the critics see: 1, the hour on its circle, age of the list, events ever, events since; not the load."""
    angle = 2 * np.pi * (situation.time % DAY_US) / DAY_US
    counts = np.log1p([situation.age_s / 60, situation.seen, situation.since])
    return np.concatenate([[1.0, np.sin(angle), np.cos(angle)], counts])


class ByCritics:
    """Policy that compares what a request is worth in real time and from the cache (CARL).

    The loss of a request is the difference of the two values. At load ``p`` below 1 the kept list is shown where the loss is among the
    ``p`` smallest of the latest requests; at none the list is computed, and without room the kept list is shown.

    Args:
        critics: folder of :class:`~taiji.models.policy.cache_critics.CacheCritics` of two levels, 0 in real time and 1 from the cache, fitted
            on :func:`request_features`.
        chain: (2, 2) transitions between the levels, by :func:`~taiji.models.policy.cache_critics.fit_chain`.

    Raises:
        ConfigError: the critics are not of two levels and these features.
        InputError: not a chain.
        ArtifactError: the folder does not hold critics.
    """

    def __init__(self, critics: str | Path, chain: Sequence[Sequence[float]]) -> None:
        model = CacheCritics.load(critics)
        if model.heads.shape != (2, FEATURES):
            raise ConfigError(
                "These critics do not value requests of the service.",
                where="serving.recommend.policy_settings",
                expected=f"critics of 2 levels, {FEATURES} features of request_features",
                found=f"{model.heads.shape[0]} levels, {model.heads.shape[1]} features",
                fix="fit them on taiji.serving.cache_critics_policy.request_features",
            )
        values = model.values(np.eye(FEATURES), np.asarray(chain, dtype=np.float64))
        self._weights = values[:, 0] - values[:, 1]  # values are linear in the features
        self._losses: deque[float] = deque(maxlen=LATEST)
        self._lock = Lock()

    def loss(self, situation: Situation) -> float:
        """Return the value in real time less the one from the cache."""
        return float(request_features(situation) @ self._weights)

    def from_cache(self, situation: Situation) -> bool:
        """Return whether there is no room, or the loss is small for this load."""
        loss = self.loss(situation)
        with self._lock:
            self._losses.append(loss)
            latest = np.fromiter(self._losses, np.float64)
        if not situation.room:
            return True
        return bool(np.mean(latest < loss) < min(situation.load, 1.0))
