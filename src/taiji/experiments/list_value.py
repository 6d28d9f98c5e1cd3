"""Off-policy value of recommended lists, in clicks per item shown, from a log with propensities.

The target policy shows one item of its list, drawn uniformly, instead of the logged exposure: π(a|x) = 1/k for the k
items of the list. Its value is the click rate of the list's items in the logged positions, next to the other logged
items. Effects of showing the items of the list together are not measured.

Propensities must be marginal over the other positions, as in a uniform choice. Under score-based sampling without
replacement, propensities are conditional, so the weights are only approximate. Correct weights have a mean of 1; the
distance of the mean weight from 1 shows how good the approximation is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from taiji.core.component import NO_ITEM, Requests
from taiji.data.dataset import Dataset
from taiji.experiments.offpolicy import Logged, ips_terms, snips_terms, value_interval

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class LoggedLists:
    """Logged requests of a period with all of their exposures.

    Attributes:
        requests: the B requests.
        row: (N,) request of each exposure.
        item, reward, propensity: (N,) per exposure.
    """

    requests: Requests
    row: Array
    item: Array
    reward: Array
    propensity: Array


def logged_lists(dataset: Dataset, start: int, most: int, seed: int) -> LoggedLists | None:
    """Return a random sample of logged requests from a time on; None if the log has no propensities in that period.

    Args:
        dataset: the log.
        start: earliest time of a request, in microseconds.
        most: largest number of requests.
        seed: seed of the sample.
    """
    column = dataset.event_columns.propensity
    if column is None:
        return None
    shown = dataset.events.filter(
        (pl.col("time") >= start) & pl.col("exposed") & pl.col(column).is_not_null() & pl.col("click").is_not_null()
    )
    if not len(shown):
        return None
    asked = shown.unique(["user", "time"], keep="first", maintain_order=True).sort("user", "time")
    if len(asked) > most:
        chosen = np.sort(np.random.default_rng([seed, len(asked)]).choice(len(asked), most, replace=False))
        asked = asked[chosen]
    numbered = asked.select("user", "time").with_row_index("row")
    rows = shown.join(numbered, on=["user", "time"], how="inner", maintain_order="right_left")
    columns = {name: asked[name].to_numpy() for name in dataset.context}
    requests = Requests(asked["user"].to_numpy(), asked["time"].to_numpy(), columns)
    row, item, click = (rows[name].to_numpy().astype(np.int64) for name in ("row", "item", "click"))
    return LoggedLists(requests, row, item, click.astype(np.float64), rows[column].to_numpy().astype(np.float64))


def list_values(
    logged: LoggedLists,
    lists: Mapping[str, Array],
    against: str,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """Return the estimated reward of lists per item shown.

    Args:
        logged: requests and exposures.
        lists: lists of each arm by name, (B, K) each, padded with −1.
        against: arm that others are compared with.
        resamples, level, seed: number of bootstrap resamples of users, level of the intervals, and random seed.

    Returns:
        ``requests``, ``exposures``, ``logged`` (the log's own clicks per item shown) and ``arms``: name, ``matched``
        (exposures also in the arm's list), ``effective_rows``, ``mean_weight``, ``ips``, ``snips``, ``gain`` (ips
        minus the log's reward, paired) and ``difference`` from ``against`` (of snips).
    """
    _, user = np.unique(logged.requests.user[logged.row], return_inverse=True)
    mean = Logged(logged.reward, np.ones(len(logged.reward)), np.ones(len(logged.reward)))
    interval = partial(_interval, user=user, resamples=resamples, level=level, seed=seed)
    found: dict[str, Any] = {
        "requests": len(logged.requests),
        "exposures": len(logged.row),
        "reward": "clicks per item shown",
        "logged": interval(logged.reward, log=mean),
        "arms": [],
    }
    logs = {name: _log(logged, items) for name, items in lists.items()}
    for name, log in logs.items():
        arm = {
            "arm": name,
            "matched": int((log.targets > 0).sum()),
            "effective_rows": log.effective_rows,
            "mean_weight": float(log.weights.mean()),
            "ips": interval(ips_terms(log), log=log),
            "snips": interval(snips_terms(log), log=log),
            "gain": interval(ips_terms(log) - logged.reward, log=log),
        }
        if name != against and against in logs:
            gap = snips_terms(log) - snips_terms(logs[against])
            scarce = min(log, logs[against], key=lambda one: one.effective_rows)
            arm["difference"] = {"against": against, **interval(gap, log=scarce)}
        found["arms"].append(arm)
    return found


def _log(logged: LoggedLists, items: Array) -> Logged:
    """Return the log with the target policy's probabilities: a uniform choice from the request's list."""
    there = items != NO_ITEM
    inside = ((items[logged.row] == logged.item[:, None]) & there[logged.row]).any(axis=1)
    length = np.maximum(there.sum(axis=1), 1)[logged.row]
    return Logged(logged.reward, logged.propensity, np.where(inside, 1.0 / length, 0.0))


def _interval(terms: Array, *, user: Array, log: Logged, resamples: int, level: float, seed: int) -> dict[str, Any]:
    """Return the mean of terms (N,) with an interval over users, because rows of a user are not independent.

    The mean is the ratio of the users' sums to their numbers of rows. A user's deviation is therefore the sum of the
    user's terms minus the mean times the number of the user's rows.
    """
    users = int(user.max(initial=-1)) + 1
    if not np.isfinite(terms).all():
        return {"value": None, "low": None, "high": None, "n": users, "reason": log.no_overlap}
    mean = terms.mean()
    sums = mean + np.bincount(user, weights=terms - mean, minlength=users) * users / len(terms)
    return dict(value_interval(sums, log, resamples=resamples, level=level, seed=seed))
