"""Metrics for numeric labels such as counts, durations and grades: errors and concordance of the predictions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from taiji.metrics.bootstrap import Fixed, Ratio, Statistic
from taiji.metrics.concordance import PooledConcordance, grouped_concordance
from taiji.metrics.ranking_metrics import (
    FromStatistic,
    MeanOverRows,
    MeanOverUsers,
    Rows,
    mean_by,
    mean_of_requests,
    tied,
)

Array = NDArray[Any]


@dataclass(frozen=True)
class XAUC(FromStatistic):
    """Probability that, of two rows with different labels, the one with the larger label has the larger prediction; all
    users pooled."""

    name: str = "xauc"
    title: str = "XAUC"
    goal: str = "high"

    def statistic(self, rows: Rows) -> Statistic:
        """Return the pooled concordance under user weights."""
        if tied(rows) and np.ptp(rows.labels) > 0:
            return Fixed(0.5, rows.n_users, len(np.unique(rows.users)))
        return PooledConcordance(rows.users, rows.labels, rows.scores, rows.n_users)

    def calc_per_user(self, rows: Rows) -> Array:
        """Return the concordance of each user's rows."""
        return grouped_concordance(rows.users, rows.labels, rows.scores, rows.n_users)


@dataclass(frozen=True)
class UserXAUC(MeanOverUsers):
    """Mean over users of the concordance of a user's rows; users whose labels are all equal do not count."""

    name: str = "user_xauc"
    title: str = "XAUC within users"
    goal: str = "high"
    proportion: ClassVar[bool] = True
    of_ties: ClassVar[float | None] = 0.5

    def calc_per_user(self, rows: Rows) -> Array:
        """Return the concordance of each user's rows."""
        return grouped_concordance(rows.users, rows.labels, rows.scores, rows.n_users)


@dataclass(frozen=True)
class RequestXAUC(MeanOverUsers):
    """Concordance within requests, averaged over each user's requests in which labels differ, then over users."""

    name: str = "request_xauc"
    title: str = "XAUC within requests"
    goal: str = "high"
    proportion: ClassVar[bool] = True
    of_ties: ClassVar[float | None] = 0.5

    def calc_per_user(self, rows: Rows) -> Array:
        """Return the mean over each user's requests."""
        requests = int(rows.requests.max(initial=-1)) + 1
        return mean_of_requests(rows, grouped_concordance(rows.requests, rows.labels, rows.scores, requests))


@dataclass(frozen=True)
class MAE(MeanOverRows):
    """Mean over rows of the distance between prediction and label, in the label's unit."""

    name: str = "mae"
    title: str = "Mean absolute error"
    goal: str = "low"

    def row_values(self, rows: Rows) -> Array:
        """Return each row's absolute error, (N,)."""
        return np.abs(rows.scores - rows.labels)


@dataclass(frozen=True)
class RMSE(FromStatistic):
    """Root of the mean over rows of the squared error, in the label's unit."""

    name: str = "rmse"
    title: str = "Root mean squared error"
    goal: str = "low"

    def statistic(self, rows: Rows) -> Statistic:
        """Return the root of the mean over rows under user weights."""
        return _Root(Ratio.of_rows(rows.users, (rows.scores - rows.labels) ** 2, rows.n_users))

    def calc_per_user(self, rows: Rows) -> Array:
        """Return the root of the mean over each user's rows."""
        return np.sqrt(mean_by(rows.users, (rows.scores - rows.labels) ** 2, rows.n_users))


@dataclass(frozen=True)
class _Root:
    """Square root of another statistic."""

    square: Ratio
    units_text = "users"

    @property
    def n_users(self) -> int:
        return self.square.n_users

    @property
    def n(self) -> int:
        return self.square.n

    @property
    def units(self) -> int:
        return self.square.units

    def differing(self, other: Statistic) -> int:
        return self.square.differing(other.square) if isinstance(other, _Root) else min(self.n, other.n)

    def __call__(self, weights: Array) -> Array:
        return np.sqrt(self.square(weights))
