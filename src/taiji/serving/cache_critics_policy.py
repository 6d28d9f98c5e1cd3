"""Learnt policy of the result cache, which gives kept lists first to the requests that lose least by them."""

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
"""Number of latest requests with which a loss is compared."""
DAY_US = 86_400_000_000
FEATURES = 6


def request_features(situation: Situation) -> NDArray[np.float64]:
    """Return the features (6,) that the critics read: 1, sine and cosine of the hour, age, and two event counts."""
    angle = 2 * np.pi * (situation.time % DAY_US) / DAY_US
    counts = np.log1p([situation.age_s / 60, situation.seen, situation.since])
    return np.concatenate([[1.0, np.sin(angle), np.cos(angle)], counts])


class ByCritics:
    """Policy that compares the values of a request in real time and from the cache (CARL).

    The loss of a request is its value in real time minus its value from the cache. At a load ``p`` below 1, the kept
    list is shown if the loss is at most the ``p``-quantile of the losses of the latest requests. At load 0 the list is
    computed, and without capacity the kept list is shown.

    Args:
        critics: folder of :class:`~taiji.models.policy.cache_critics.CacheCritics` with two levels (0 in real time, 1
            from the cache), fitted on :func:`request_features`.
        chain: (2, 2) transition probabilities between the levels, from
            :func:`~taiji.models.policy.cache_critics.fit_chain`.

    Raises:
        ConfigError: the critics have other than two levels, or were fitted on other features.
        InputError: ``chain`` is not a matrix of transition probabilities, or its eigenvectors cannot be used; see
            :func:`~taiji.models.policy.cache_critics.load_basis`.
        ArtifactError: the folder does not hold critics.
    """

    def __init__(self, critics: str | Path, chain: Sequence[Sequence[float]]) -> None:
        model = CacheCritics.load(critics)
        if model.heads.shape != (2, FEATURES):
            raise ConfigError(
                "These critics cannot evaluate requests of the service.",
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
        """Return the value in real time minus the value from the cache."""
        return float(request_features(situation) @ self._weights)

    def from_cache(self, situation: Situation) -> bool:
        """Return whether there is no capacity, or the loss is small for this load."""
        loss = self.loss(situation)
        with self._lock:
            self._losses.append(loss)
            latest = np.fromiter(self._losses, np.float64)
        if not situation.room:
            return True
        return bool(np.mean(latest < loss) < min(situation.load, 1.0))
