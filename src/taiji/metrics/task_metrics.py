"""Metrics of each kind of task, and their display names."""

from __future__ import annotations

from collections.abc import Mapping

from taiji.data.tasks import DEFAULT_TASKS, Kind
from taiji.metrics.ranking_metrics import AUC, NDCG, RANKING_METRICS, Calibration, LogLoss, Metric, UserAUC
from taiji.metrics.value_metrics import MAE, RMSE, XAUC, RequestXAUC, UserXAUC

VALUE_METRICS: tuple[Metric, ...] = (XAUC(), UserXAUC(), MAE(), RMSE(), Calibration())
METRICS: Mapping[Kind, tuple[Metric, ...]] = {
    "binary": RANKING_METRICS,
    "survey": RANKING_METRICS,
    "count": VALUE_METRICS,
    "duration": VALUE_METRICS,
    "ordinal": (XAUC(), UserXAUC(), MAE()),
    "pairwise": (RequestXAUC(),),
}
"""Metrics of the predictions of each kind of task, in the order of ``metrics.json``."""
SHOWN_METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        AUC(),
        XAUC(),
        UserAUC(),
        UserXAUC(),
        NDCG(10),
        RequestXAUC(),
        LogLoss(),
        MAE(),
        RMSE(),
        Calibration(),
    )
}
"""Metrics by name, in the order in which tables show them."""
MAIN_METRICS = ("auc", "xauc", "request_xauc", "log_loss", "mae")
"""Metrics of short tables, which show only one or two per prediction: a ranking metric, then an error metric."""


def split_key(key: str) -> tuple[str, str]:
    """Split a key of ``metrics.json``, such as ``click auc``, into the names of prediction (head) and metric."""
    head, _, metric = key.rpartition(" ")
    return head, metric


def title_of(metric: str) -> str:
    """Return a metric's display name."""
    return SHOWN_METRICS[metric].title if metric in SHOWN_METRICS else metric


def key_title(key: str) -> str:
    """Return the display name of a key of ``metrics.json``, such as `click AUC` or `click and conversion Log-loss`."""
    head, metric = split_key(key)
    return f"{head_title(head)} {title_of(metric)}" if head else title_of(metric)


def head_title(head: str) -> str:
    """Return a prediction's display name."""
    for task in DEFAULT_TASKS:
        if task.given and head == task.heads[-1]:
            return f"{task.given} and {task.name}"
    return head.replace("_", " ")
