"""Probability that a user is active on the next day, by logistic regression on the user's past active days."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from taiji.core.errors import InputError

Array = NDArray[Any]
WINDOWS = (1, 3, 7, 14, 30)
"""Lengths in days of the windows in which active days are counted, in ascending order."""
TAUGHT = 7
"""Number of latest days that are targets of the regression; fewer if the log is shorter."""
PENALTY = 1.0


def activity_features(active: Array) -> Array:
    """Return the features (U, F): the share of active days in each of the :data:`WINDOWS`, and the inverse of the
    number of days since the last active day (1 for the latest day, 0 if there is none).

    Args:
        active: (U, D) bool, True if the user was active on the day. The columns are the last D days, latest day last.
    """
    days = active.shape[1]
    shares = [active[:, max(0, days - window) :].sum(axis=1) / window for window in WINDOWS]
    since = (
        np.where(active.any(axis=1), 1 + np.argmax(active[:, ::-1], axis=1), np.inf)
        if days
        else np.full(len(active), np.inf)
    )
    return np.stack([*shares, 1 / since], axis=1)


def fit_activity(active: Array) -> Array:
    """Return the coefficients (F + 1,), intercept last, of a logistic regression that predicts activity on a day from
    the days before it.

    The targets are the last :data:`TAUGHT` days. The fit uses Newton's method with an L2 penalty.

    Args:
        active: (U, D) bool, as in :func:`activity_features`.

    Raises:
        InputError: there are fewer than two days, or no users.
    """
    days = active.shape[1]
    if days < 2 or not len(active):
        raise InputError(
            "Activity cannot be learnt from fewer than two days or without users.", where="active", expected="users with 2 days or more", found=str(active.shape)
        )  # fmt: skip
    taught = range(max(1, days - TAUGHT), days)
    x = _with_one(np.concatenate([activity_features(active[:, :day]) for day in taught]))
    y = np.concatenate([active[:, day] for day in taught]).astype(np.float64)
    found = np.zeros(x.shape[1])
    penalty = PENALTY * np.eye(len(found))
    penalty[-1, -1] = 1e-6  # the intercept is barely penalised, which matters only if all users or none were active
    for _ in range(50):
        chance = 1 / (1 + np.exp(-x @ found))
        gradient = x.T @ (y - chance) - penalty @ found
        step = np.linalg.solve(x.T @ (x * (chance * (1 - chance))[:, None]) + penalty, gradient)
        found = found + step
        if np.abs(step).max() < 1e-10:
            break
    return found


def activity_chances(active: Array, coefficients: Array) -> Array:
    """Return the probability (U,) that each user is active on the day after the last column of ``active`` (U, D)."""
    return np.asarray(1 / (1 + np.exp(-_with_one(activity_features(active)) @ coefficients)))


def _with_one(features: Array) -> Array:
    return np.concatenate([features, np.ones((len(features), 1))], axis=1)
