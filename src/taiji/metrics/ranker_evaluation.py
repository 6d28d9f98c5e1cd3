"""Rankers judged on the same exposures: every arm with an interval, every comparison in pairs.

A click metric is over all exposures; a CTCVR metric over those whose conversion label is known (see :func:`matured`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from taiji.core.errors import TaijiError
from taiji.metrics.bootstrap import differences, distribution, entry, honest
from taiji.metrics.ranking_metrics import RANKING_METRICS, Metric, Rows

if TYPE_CHECKING:
    from taiji.data.dataset import Dataset

Array = NDArray[Any]
HEADS = ("click", "ctcvr")
"""Predictions that are judged; the second is the chance of a click that converts."""


def sparsest_third(dataset: Dataset, users: ArrayLike, as_of: int) -> Array:
    """The third of ``users`` with the fewest interactions before ``as_of``, ties by user number.

    Args:
        dataset: where the histories are.
        users: user numbers, repeats allowed.
        as_of: microseconds; take the start of the test period, so that the test does not decide who is in.
    """
    unique = np.unique(np.asarray(users, dtype=np.int64))
    counts = dataset.history.count_before(unique, np.full(len(unique), as_of, dtype=np.int64))
    return np.sort(unique[np.lexsort((unique, counts))[: len(unique) // 3]])


def matured(exposures: pl.DataFrame) -> Array:
    """Rows (mask) on which a click that converts can be judged without bias.

    A click late in a period has no label yet, while a non-click has one at once; dropping only such clicks would make
    clicks look rare. So all rows after the last click with a known conversion are left out, and before it only the
    clicks without a label.
    """
    click, known = exposures["click"].to_numpy() > 0, exposures["conversion"].is_not_null().to_numpy()
    time = exposures["time"].to_numpy()
    labelled = click & known
    if not labelled.any():
        return np.zeros(len(exposures), dtype=bool)
    return (time <= time[labelled].max()) & (known | ~click)


def evaluate_rankers(
    exposures: pl.DataFrame,
    predictions: Mapping[str, pl.DataFrame],
    sparse_users: ArrayLike | None = None,
    *,
    groups: Mapping[str, Array] | None = None,
    against: str = "none",
    rivals: Sequence[str] = ("history_mean",),
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """AUC, per-user AUC, log-loss, NDCG@10 and calibration of every arm, overall and in groups of rows.

    Args:
        exposures: the judged rows: ``user, item, time, click, conversion``; a request is a user at a time.
        predictions: arm → frame with ``click`` and ``ctcvr`` in the rows' order.
        sparse_users: users of the group ``sparse`` (see :func:`sparsest_third`).
        groups: further groups as masks over the rows, for instance cold items or one department.
        against: the arm the others are compared with, when it is among them.
        rivals: arms that every arm named after them is compared with as well (the cheap way that the dear one must beat).
        resamples, level, seed: of the bootstrap.

    Returns:
        Rows ``{"features", "group", "metric", "value", "low", "high", "n"}``; ``metric`` is a head and a name, as
        ``click auc``; arms other than ``against`` also have ``difference`` = ``{"against", "value", "low", "high"}``,
        and those after a rival have ``rivals``, a list of such.

    Raises:
        TaijiError: an arm's frame has another number of rows, or lacks a column.
    """
    _check(exposures, predictions)
    rows: list[dict[str, Any]] = []
    for group, head, part, labels, chosen in head_rows(exposures, sparse_users, groups):
        tables = {
            arm: Rows.of(part["user"].to_numpy(), labels, frame[head].to_numpy()[chosen], part["time"].to_numpy())
            for arm, frame in predictions.items()
        }
        found = [_figures(metric, tables, against, rivals, resamples, level, seed) for metric in RANKING_METRICS]
        rows += [
            {"features": arm, "group": group, "metric": f"{head} {m.name}", **figures[arm]}
            for arm in tables
            for m, figures in zip(RANKING_METRICS, found)
        ]
    return rows


def head_rows(
    exposures: pl.DataFrame, sparse_users: ArrayLike | None = None, groups: Mapping[str, Array] | None = None
) -> Iterator[tuple[str, str, pl.DataFrame, Array, Array]]:
    """What is judged on which rows: (group, head, its rows, their labels, their row numbers), empty ones left out."""
    masks = {"all": np.ones(len(exposures), dtype=bool)}
    if sparse_users is not None:
        masks["sparse"] = np.isin(exposures["user"].to_numpy(), np.asarray(sparse_users))
    masks |= groups or {}
    click = exposures["click"].to_numpy() > 0
    bought = click & (exposures["conversion"].fill_null(0).to_numpy() > 0)
    heads = {"click": (click, np.ones(len(click), dtype=bool)), "ctcvr": (bought, matured(exposures))}
    for group, mask in masks.items():
        for head, (labels, usable) in heads.items():
            chosen = np.flatnonzero(mask & usable)
            if len(chosen):
                yield group, head, exposures[chosen], labels[chosen], chosen


def _figures(
    metric: Metric,
    tables: Mapping[str, Rows],
    against: str,
    rivals: Sequence[str],
    resamples: int,
    level: float,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """One metric of every arm, all on the same resamples."""
    arms, statistics = list(tables), [metric.statistic(rows) for rows in tables.values()]
    points, draws = distribution(statistics, resamples=resamples, seed=seed)

    gaps = differences(arms, points, draws, [s.n for s in statistics], against, rivals, level)
    return {
        arm: {
            **honest(statistic, entry(points[column], draws[:, column], statistic.n, level=level), level),
            **gaps[column],
        }
        for column, (arm, statistic) in enumerate(zip(arms, statistics))
    }


def _check(exposures: pl.DataFrame, predictions: Mapping[str, pl.DataFrame]) -> None:
    for arm, frame in predictions.items():
        missing = [head for head in HEADS if head not in frame.columns]
        if missing:
            raise TaijiError(
                "A ranker's predictions lack a column.",
                where=arm,
                expected=", ".join(HEADS),
                found=", ".join(frame.columns),
            )
        if len(frame) != len(exposures):
            raise TaijiError(
                "A ranker's predictions are not in the rows' order.",
                where=arm,
                expected=f"{len(exposures)} rows",
                found=f"{len(frame)} rows",
            )
