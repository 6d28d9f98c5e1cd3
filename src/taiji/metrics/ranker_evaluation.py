"""Evaluation of rankers on the same exposures, with an interval for every arm and paired comparisons.

A prediction is evaluated on the rows where its label is known (see :func:`taiji.data.tasks.labels`). For a
conditional binary task the joint prediction is evaluated ("click and conversion"), because the conditional one
concerns only rows selected by the logging policy and the user.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from taiji.core.errors import InputError
from taiji.data.tasks import DEFAULT_TASKS, Task, labels
from taiji.metrics.bootstrap import distribution
from taiji.metrics.intervals import differences, interval_of
from taiji.metrics.ranking_metrics import Arm, Metric, Rows
from taiji.metrics.task_metrics import METRICS

if TYPE_CHECKING:
    from taiji.data.dataset import Dataset

Array = NDArray[Any]


@dataclass(frozen=True)
class HeadRows(Generic[Arm]):
    """One prediction of every arm, on a group's rows with a known label.

    Attributes:
        group: name of the group of rows.
        head: name of the prediction, a column of every arm's frame.
        metrics: metrics for this kind of prediction.
        chosen: (N,) row indices in the exposures.
        arms: labelled predictions, by name of the arm.
    """

    group: str
    head: str
    metrics: tuple[Metric, ...]
    chosen: Array
    arms: dict[Arm, Rows]


def evaluated_heads(tasks: Sequence[Task]) -> dict[str, Task]:
    """Return each task by the name of the column with its evaluated prediction."""
    return {task.heads[-1]: task for task in tasks}


def predicted_tasks(tasks: Sequence[Task], predictions: Iterable[pl.DataFrame]) -> tuple[Task, ...]:
    """Return the tasks whose evaluated prediction every arm provides; a ranker may be trained on only some of a
    log's labels."""
    columns = [frozenset(frame.columns) for frame in predictions]
    return tuple(task for task in tasks if all(task.heads[-1] in names for names in columns))


def sparsest_third(dataset: Dataset, users: ArrayLike, as_of: int) -> Array:
    """Return the third of ``users`` with the fewest interactions before ``as_of``, ties broken by user id.

    Args:
        dataset: source of the histories.
        users: dense user ids, repeats allowed.
        as_of: time in microseconds; use the start of the test period, so that test data do not decide membership.
    """
    unique = np.unique(np.asarray(users, dtype=np.int64))
    counts = dataset.history.count_before(unique, np.full(len(unique), as_of, dtype=np.int64))
    return np.sort(unique[np.lexsort((unique, counts))[: len(unique) // 3]])


def evaluate_rankers(
    exposures: pl.DataFrame,
    predictions: Mapping[str, pl.DataFrame],
    sparse_users: ArrayLike | None = None,
    *,
    tasks: Sequence[Task] = DEFAULT_TASKS,
    groups: Mapping[str, Array] | None = None,
    against: str = "none",
    competitors: Sequence[str] = ("history_mean",),
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Return every metric of every arm's predictions, over all rows and in groups of rows.

    Args:
        exposures: the rows, with ``user, item, time`` and the tasks' labels. Rows with the same user and time form a
            request.
        predictions: frame of each arm, with one column per evaluated prediction, in the order of the rows.
        sparse_users: users of the group ``sparse`` (see :func:`sparsest_third`).
        tasks: tasks to evaluate, each with the metrics of its kind.
        groups: additional groups as masks over the rows, for instance cold items or one department.
        against: the arm with which the others are compared; if it is not among the arms, there is no such comparison.
        competitors: arms with which every later arm is also compared (cheap methods that expensive ones must beat).
        resamples, level, seed: number of bootstrap resamples, coverage of the intervals, and random seed.

    Returns:
        Rows ``{"features", "group", "metric", "value", "low", "high", "n"}``, where ``features`` is the arm and
        ``metric`` joins the names of prediction and metric, such as ``click auc``. Arms other than ``against`` also
        have ``difference`` = ``{"against", "value", "low", "high"}``. Arms that follow a competitor have
        ``competitors``, a list of such differences. ``method`` and ``reason`` are added where they apply, see
        :class:`taiji.metrics.intervals.Entry`.

    Raises:
        InputError: an arm's frame has the wrong number of rows, or lacks a column.
    """
    _check(exposures, predictions, tasks)
    rows: list[dict[str, Any]] = []
    for part in head_rows(exposures, predictions, sparse_users, groups, tasks):
        found = [_entries(metric, part.arms, against, competitors, resamples, level, seed) for metric in part.metrics]
        rows += [
            {"features": arm, "group": part.group, "metric": f"{part.head} {m.name}", **entries[arm]}
            for arm in part.arms
            for m, entries in zip(part.metrics, found)
        ]
    return rows


def head_rows(
    exposures: pl.DataFrame,
    predictions: Mapping[Arm, pl.DataFrame],
    sparse_users: ArrayLike | None = None,
    groups: Mapping[str, Array] | None = None,
    tasks: Sequence[Task] = DEFAULT_TASKS,
) -> Iterator[HeadRows[Arm]]:
    """Yield each evaluated prediction with its rows; groups without a labelled row are left out.

    Args:
        exposures, sparse_users, groups, tasks: as in :func:`evaluate_rankers`.
        predictions: frame of each arm, with one column per evaluated prediction, in the order of the rows.
    """
    masks = {"all": np.ones(len(exposures), dtype=bool)}
    if sparse_users is not None:
        masks["sparse"] = np.isin(exposures["user"].to_numpy(), np.asarray(sparse_users))
    masks |= groups or {}
    known = labels(exposures, tasks)
    users, times = exposures["user"].to_numpy(), exposures["time"].to_numpy()
    for group, mask in masks.items():
        for head, task in evaluated_heads(tasks).items():
            chosen = np.flatnonzero(mask & np.isfinite(known[head]))
            if len(chosen):
                scores = {arm: frame[head].to_numpy()[chosen] for arm, frame in predictions.items()}
                arms = Rows.of_arms(users[chosen], known[head][chosen], scores, times[chosen], kind=task.kind)
                yield HeadRows(group, head, METRICS[task.kind], chosen, arms)


def _entries(
    metric: Metric,
    tables: Mapping[str, Rows],
    against: str,
    competitors: Sequence[str],
    resamples: int,
    level: float,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Return each arm's entry for one metric; all arms use the same resamples."""
    arms, statistics = list(tables), [metric.statistic(rows) for rows in tables.values()]
    points, draws = distribution(statistics, resamples=resamples, seed=seed)

    contents = [rows.content for rows in tables.values()]
    every = [[statistic] for statistic in statistics]
    gaps = differences(arms, points, draws, every, contents, against, competitors, level)
    return {
        arm: {**interval_of(own, points[column], draws[:, column], level), **gaps[column]}
        for column, (arm, own) in enumerate(zip(arms, every))
    }


def _check(exposures: pl.DataFrame, predictions: Mapping[str, pl.DataFrame], tasks: Sequence[Task]) -> None:
    heads = list(evaluated_heads(tasks))
    for arm, frame in predictions.items():
        if any(head not in frame.columns for head in heads):
            raise InputError(
                "A ranker's predictions lack a column.",
                where=arm,
                expected=", ".join(heads),
                found=", ".join(frame.columns),
            )
        if len(frame) != len(exposures):
            raise InputError(
                "A ranker does not have one prediction per exposure.",
                where=arm,
                expected=f"{len(exposures)} rows",
                found=f"{len(frame)} rows",
            )
