"""Ranking metrics with one interface: a value over all rows (``calc``) and one per user (``calc_per_user``).

Every metric is exact under ties: a constant prediction gets its average value over all orders (AUC ½, the expected
NDCG; McSherry & Najork, *ECIR* 2008), so a result never depends on the order of the input.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from taiji.core.errors import InputError
from taiji.data.tasks import Kind
from taiji.metrics.bootstrap import Fixed, PooledAUC, Ratio, Statistic

Array = NDArray[Any]
Arm = TypeVar("Arm", bound=Hashable)
SMALLEST = 1e-7
"""Probabilities are clipped this far from 0 and 1, so that a wrong prediction of exactly 0 or 1 costs 16 nats instead
of infinity."""


@dataclass(frozen=True)
class Rows:
    """Labelled predictions, with users and requests as codes 0, 1, 2, …

    Args:
        users: (N,) user codes below ``n_users``.
        labels: (N,) 0 or 1, or numbers if the task is not binary.
        scores: (N,) predictions; probabilities for metrics of probabilities.
        requests: (N,) codes of the ranked lists (one user at one time).
        n_users: number of users, including users without a row, who are resampled as well.
    """

    users: Array
    labels: Array
    scores: Array
    requests: Array
    n_users: int

    @property
    def content(self) -> str:
        """Hash of the predictions. It is equal for rankers with identical predictions on the same rows."""
        return hashlib.sha256(self.scores.tobytes()).hexdigest()

    @classmethod
    def of(
        cls,
        users: ArrayLike,
        labels: ArrayLike,
        scores: ArrayLike,
        times: ArrayLike | None = None,
        *,
        kind: Kind = "binary",
    ) -> Rows:
        """Create rows from raw ids of any type; see :meth:`of_arms`."""
        return cls.of_arms(users, labels, {"": scores}, times, kind=kind)[""]

    @classmethod
    def of_arms(
        cls,
        users: ArrayLike,
        labels: ArrayLike,
        scores: Mapping[Arm, ArrayLike],
        times: ArrayLike | None = None,
        *,
        kind: Kind = "binary",
    ) -> dict[Arm, Rows]:
        """Create each arm's rows from raw ids of any type; users and requests are encoded once for all arms.

        Args:
            users, labels: (N,) each.
            scores: predictions (N,) of each arm.
            times: (N,); they split a user's rows into requests. Without times, a user has one request.
            kind: kind of the task, to check its labels.

        Raises:
            InputError: different lengths, labels invalid for the task, or scores that are not finite.
        """
        raw, y = np.asarray(users), np.asarray(labels, dtype=np.float64)
        of = {arm: np.asarray(values, dtype=np.float64) for arm, values in scores.items()}
        for arm, s in of.items():
            if not (raw.shape == y.shape == s.shape and raw.ndim == 1):
                raise InputError(
                    "Users, labels and scores differ in length.",
                    where=str(arm) or None,
                    found=f"{raw.shape}, {y.shape}, {s.shape}",
                )
            if not np.isfinite(s).all():
                raise InputError(
                    "A prediction is not a finite number.",
                    where=f"{arm} row {int(np.flatnonzero(~np.isfinite(s))[0])}".lstrip(),
                    fix="check the ranker that produced it",
                )
        _check_labels(y, kind)
        unique, codes = np.unique(raw, return_inverse=True)
        requests = codes
        if times is not None:
            _, when = np.unique(np.asarray(times), return_inverse=True)
            _, requests = np.unique(codes.astype(np.int64) * (int(when.max(initial=0)) + 1) + when, return_inverse=True)
        return {arm: cls(codes, y, s, requests, len(unique)) for arm, s in of.items()}


def _check_labels(labels: Array, kind: Kind) -> None:
    if kind in ("binary", "survey"):
        wrong, message = ~np.isin(labels, (0.0, 1.0)), "A label is neither 0 nor 1."
    elif kind == "pairwise":
        wrong, message = ~np.isfinite(labels), "A label is not a finite number."
    else:
        wrong, message = ~(np.isfinite(labels) & (labels >= 0)), "A label is negative or not a finite number."
    if wrong.any():
        raise InputError(message, found=str(labels[wrong][:3].tolist()))


class Metric(Protocol):
    """A metric, computed over all rows, per user, and under user weights."""

    @property
    def name(self) -> str:
        """Key in ``metrics.json``."""

    @property
    def title(self) -> str:
        """Display name."""

    @property
    def goal(self) -> str:
        """Direction of improvement: ``high``, ``low``, or ``one`` for a calibration."""

    def calc(self, rows: Rows) -> float:
        """Return the value over all rows; NaN where undefined."""

    def calc_per_user(self, rows: Rows) -> Array:
        """Return the values per user, (n_users,); NaN for users for whom the metric is undefined."""

    def statistic(self, rows: Rows) -> Statistic:
        """Return the metric as a function of user weights, for intervals."""


class FromStatistic:
    """Base class whose ``calc`` evaluates the statistic with weight 1 for every user."""

    def calc(self: Metric, rows: Rows) -> float:
        return float(self.statistic(rows)(np.ones((1, rows.n_users)))[0])


class MeanOverUsers(FromStatistic):
    """Metric that is the mean of its values per user."""

    proportion: ClassVar[bool] = False
    """True if the values lie in [0, 1], which allows an exact interval when all are equal."""
    of_ties: ClassVar[float | None] = None
    """Value of the metric for constant predictions, if it is the same for all labels; else None."""

    @abstractmethod
    def calc_per_user(self, rows: Rows) -> Array:
        """Return (n_users,) values; NaN for users for whom it is undefined."""

    def statistic(self, rows: Rows) -> Statistic:
        """Return the mean over users under user weights."""
        found = Ratio.of_values(self.calc_per_user(rows), proportion=self.proportion)
        if self.of_ties is not None and tied(rows) and found.n:
            return Fixed(self.of_ties, found.n_users, found.n)
        return found


class MeanOverRows(FromStatistic):
    """Metric that is the mean of its values per row."""

    @abstractmethod
    def row_values(self, rows: Rows) -> Array:
        """Return (N,) values."""

    def statistic(self, rows: Rows) -> Statistic:
        """Return the mean over rows under user weights."""
        return Ratio.of_rows(rows.users, self.row_values(rows), rows.n_users)

    def calc_per_user(self, rows: Rows) -> Array:
        """Return the mean over each user's rows."""
        return mean_by(rows.users, self.row_values(rows), rows.n_users)


@dataclass(frozen=True)
class AUC(FromStatistic):
    """Probability that a random positive row is scored above a random negative one, all users pooled."""

    name: str = "auc"
    title: str = "AUC"
    goal: str = "high"

    def statistic(self, rows: Rows) -> Statistic:
        if tied(rows) and np.ptp(rows.labels) > 0:
            return Fixed(0.5, rows.n_users, len(np.unique(rows.users)))
        return PooledAUC(rows.users, rows.labels, rows.scores, rows.n_users)

    def calc_per_user(self, rows: Rows) -> Array:
        return grouped_auc(rows.users, rows.labels, rows.scores, rows.n_users)


@dataclass(frozen=True)
class UserAUC(MeanOverUsers):
    """Mean over users of the AUC of a user's rows; users without both labels do not count."""

    name: str = "user_auc"
    title: str = "AUC within users"
    goal: str = "high"
    proportion: ClassVar[bool] = True
    of_ties: ClassVar[float | None] = 0.5

    def calc_per_user(self, rows: Rows) -> Array:
        return grouped_auc(rows.users, rows.labels, rows.scores, rows.n_users)


@dataclass(frozen=True)
class LogLoss(MeanOverRows):
    """Mean over rows of −log of the probability of the observed label, in nats."""

    name: str = "log_loss"
    title: str = "Log-loss"
    goal: str = "low"

    def row_values(self, rows: Rows) -> Array:
        return row_log_loss(rows.labels, rows.scores)


@dataclass(frozen=True)
class Calibration(FromStatistic):
    """Sum of predictions over sum of labels: 1 is calibrated, above 1 over-predicts."""

    name: str = "calibration"
    title: str = "Predicted / observed"
    goal: str = "one"

    def statistic(self, rows: Rows) -> Statistic:
        total = np.bincount(rows.users, weights=rows.scores, minlength=rows.n_users)
        return Ratio(total, np.bincount(rows.users, weights=rows.labels, minlength=rows.n_users))

    def calc_per_user(self, rows: Rows) -> Array:
        total = np.bincount(rows.users, weights=rows.scores, minlength=rows.n_users)
        return _divide(total, np.bincount(rows.users, weights=rows.labels, minlength=rows.n_users))


@dataclass(frozen=True)
class NDCG(MeanOverUsers):
    """Discounted gain of a request's first ``k`` rows relative to the best order, in expectation over orders of ties.

    A user's value is the mean over the user's requests with both a positive and a negative row (other requests cannot
    be ranked wrongly). The metric is the mean over users.
    """

    k: int = 10
    goal: str = "high"
    proportion: ClassVar[bool] = True

    @property
    def name(self) -> str:
        return f"ndcg@{self.k}"

    @property
    def title(self) -> str:
        return f"NDCG@{self.k}"

    def calc_per_user(self, rows: Rows) -> Array:
        return mean_of_requests(rows, grouped_ndcg(rows.requests, rows.labels, rows.scores, self.k))


RANKING_METRICS: tuple[Metric, ...] = (AUC(), UserAUC(), LogLoss(), NDCG(10), Calibration())
"""Metrics of a binary prediction."""


def auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the AUC of labels (N,) and scores (N,) by ranks, ties one half; NaN if all labels are equal."""
    y, s = np.asarray(labels), np.asarray(scores)
    return float(grouped_auc(np.zeros(len(y), dtype=np.intp), y, s, 1)[0])


def grouped_auc(groups: Array, labels: Array, scores: Array, n_groups: int) -> Array:
    """Return the AUC within every group, (n_groups,); NaN where a group lacks one of the labels.

    It is computed for all groups at once from the rank sum of the positives, with mid-ranks for ties (Mann & Whitney,
    1947), after one sort by group and score.
    """
    if len(groups) == 0:
        return np.full(n_groups, np.nan)
    order = np.lexsort((scores, groups))
    g, s, y = groups[order], scores[order], labels[order] > 0
    starts = np.flatnonzero(np.r_[True, (g[1:] != g[:-1]) | (s[1:] != s[:-1])])
    sizes = np.diff(np.r_[starts, len(g)])
    first = np.searchsorted(g, np.arange(n_groups))
    middle = np.repeat(starts + (sizes + 1) / 2, sizes) - first[g]  # mid-rank within the group, from 1
    positives = np.bincount(g[y], minlength=n_groups).astype(np.float64)
    negatives = np.bincount(g[~y], minlength=n_groups)
    ranks = np.bincount(g[y], weights=middle[y], minlength=n_groups)
    return _divide(ranks - positives * (positives + 1) / 2, positives * negatives)


def grouped_ndcg(groups: Array, gains: Array, scores: Array, k: int) -> Array:
    """Return the expected NDCG@k within groups 0 … max; NaN where a group has no gain or only equal gains.

    Rows tied in score share the mean of their gains, which is the expectation over their orders.
    """
    n_groups = int(groups.max(initial=-1)) + 1
    if n_groups == 0:
        return np.zeros(0)
    discount = np.zeros(len(groups) + 1)
    discount[: min(k, len(groups))] = 1 / np.log2(np.arange(2, min(k, len(groups)) + 2))

    def dcg(keys: Array, shared: bool) -> Array:
        order = np.lexsort((-keys, groups))
        g, s, gain = groups[order], keys[order], gains[order].astype(np.float64)
        if shared:
            tie = np.cumsum(np.r_[True, (g[1:] != g[:-1]) | (s[1:] != s[:-1])]) - 1
            gain = (np.bincount(tie, weights=gain) / np.bincount(tie))[tie]
        position = np.arange(len(g)) - np.searchsorted(g, np.arange(n_groups))[g]
        return np.bincount(g, weights=gain * discount[position], minlength=n_groups)

    best = dcg(gains, shared=False)
    highest, lowest = np.full(n_groups, -np.inf), np.full(n_groups, np.inf)
    np.maximum.at(highest, groups, gains)
    np.minimum.at(lowest, groups, gains)
    return np.where(highest > lowest, _divide(dcg(scores, shared=True), best), np.nan)


def row_log_loss(labels: Array, probabilities: Array) -> Array:
    """Return −log of the probability of each observed label, (N,) nats."""
    p = np.clip(probabilities, SMALLEST, 1 - SMALLEST)
    return -np.where(labels > 0, np.log(p), np.log1p(-p))


def hits(above: ArrayLike, tied: ArrayLike, k: int) -> Array:
    """Return the probability (N,) that the target is among the first ``k`` items, with ties in random order.

    Args:
        above: (N,) number of candidates scored strictly higher than the target.
        tied: (N,) number of candidates with the target's score, including the target (>= 1).
        k: list length.
    """
    return np.clip((k - np.asarray(above, dtype=np.float64)) / np.maximum(np.asarray(tied), 1), 0.0, 1.0)


def tied(rows: Rows) -> bool:
    """Return True if all predictions are equal and thus give no order."""
    return len(rows.scores) > 0 and bool((rows.scores == rows.scores[0]).all())


def mean_of_requests(rows: Rows, values: Array) -> Array:
    """Return each user's mean (n_users,) of values per request, NaN left out."""
    owner = np.zeros(len(values), dtype=np.intp)
    owner[rows.requests] = rows.users
    return mean_by(owner, values, rows.n_users)


def mean_by(groups: Array, values: Array, n_groups: int) -> Array:
    """Return the mean of the finite values of each group, (n_groups,); NaN for a group without finite values."""
    known = np.isfinite(values)
    return _divide(
        np.bincount(groups[known], weights=values[known], minlength=n_groups),
        np.bincount(groups[known], minlength=n_groups),
    )


def _divide(top: Array, bottom: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(bottom != 0, top / bottom, np.nan)
