"""Learnt cache policy, which shows kept (earlier) lists for the requests that lose the least expected value."""

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
"""Number of latest requests whose losses are compared with the loss of a new request."""
DAY_US = 86_400_000_000
FEATURES = 6


def request_features(situation: Situation) -> NDArray[np.float64]:
    """Return the features (6,) that the critics read.

    They are 1, sine and cosine of the time of day, and log1p of three values of the situation: the list's age in
    minutes, ``seen`` and ``since``.
    """
    angle = 2 * np.pi * (situation.time % DAY_US) / DAY_US
    counts = np.log1p([situation.age_s / 60, situation.seen, situation.since])
    return np.concatenate([[1.0, np.sin(angle), np.cos(angle)], counts])


class ByCritics:
    """Policy that compares a request's value with a new list to its value with the kept list (CARL, arXiv 2404.14961).

    The critics predict both values. The loss of a request is its value with a new list minus its value with the kept
    list. At a load ``p`` between 0 and 1, the kept list is shown if the loss is at most the ``p``-quantile of the
    losses of the latest requests. At load 0, a new list is computed. From load 1 on, or without capacity, the kept list
    is always shown.

    Args:
        critics: folder of :class:`~taiji.models.policy.cache_critics.CacheCritics` with two levels (0 for a new list, 1
            for the kept list), fitted on :func:`request_features`.
        chain: (2, 2) transition probabilities between the levels, from
            :func:`~taiji.models.policy.cache_critics.fit_chain`.

    Raises:
        ConfigError: the critics do not have exactly two levels, or were fitted on another number of features.
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
        """Return the predicted value of a request with a new list minus its predicted value with the kept list."""
        return float(request_features(situation) @ self._weights)

    def from_cache(self, situation: Situation) -> bool:
        """Return True if there is no capacity, or if the loss is at most the quantile given by the load."""
        loss = self.loss(situation)
        with self._lock:
            self._losses.append(loss)
            latest = np.fromiter(self._losses, np.float64)
        if not situation.room:
            return True
        return bool(np.mean(latest < loss) < min(situation.load, 1.0))
