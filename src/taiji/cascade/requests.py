"""Requests of a test period, and their targets."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from taiji.core.component import Requests
from taiji.data.dataset import Dataset
from taiji.metrics.list_metrics import Targets

Array = NDArray[Any]
DAY = 86_400_000_000


def period_requests(
    dataset: Dataset,
    start: int,
    most: int,
    seed: int,
    *,
    at: Literal["random", "first"] = "random",
    horizon_days: float | None = None,
    new_only: bool = False,
) -> tuple[Requests, Targets]:
    """Return one request per user of the period from ``start`` on, at the time of one of the user's events in this
    period.

    Args:
        dataset: the log.
        start: start of the period, in microseconds.
        most: largest number of users; if there are more, a seeded sample is drawn.
        seed: seed of the sample and of the drawn events.
        at: choice of the event: a random one of the user's distinct times, or the first.
        horizon_days: days after the request within which an interaction is a target; None for all later interactions.
        new_only: True to exclude targets with which the user had interacted before the request.

    Returns:
        requests of users with at least one target, ascending by user, with the context of the drawn event; and their
        targets.
    """
    random = np.random.default_rng(seed)
    later = dataset.events.filter(pl.col("time") >= start)
    times = later.unique(["user", "time"], keep="first", maintain_order=True).sort("user", "time")
    users, first, counts = np.unique(times["user"].to_numpy(), return_index=True, return_counts=True)
    drawn = first + (np.floor(random.random(len(users)) * counts).astype(np.int64) if at == "random" else 0)
    asked = times[drawn]
    begin = np.full(dataset.n_users, np.iinfo(np.int64).max)
    begin[users] = asked["time"].to_numpy()
    clicks = later.filter(pl.col("click") == 1)
    who, what, when = (clicks[name].to_numpy().astype(np.int64) for name in ("user", "item", "time"))
    inside = when >= begin[who]
    if horizon_days is not None:
        inside &= when < begin[who] + int(horizon_days * DAY)
    if new_only:
        inside &= ~_had_before(dataset, who, what, begin)
    who, what = who[inside], what[inside]
    chosen = np.unique(who)
    if len(chosen) > most:
        chosen = np.sort(random.choice(chosen, most, replace=False))
    place = np.full(dataset.n_users, -1)
    place[chosen] = np.arange(len(chosen))
    kept = place[who] >= 0
    rows = np.searchsorted(users, chosen)
    columns = {name: asked[name].to_numpy()[rows] for name in dataset.context}
    requests = Requests(chosen, asked["time"].to_numpy()[rows], columns)
    return requests, Targets.of(place[who[kept]], what[kept], len(chosen))


def _had_before(dataset: Dataset, users: Array, items: Array, begin: Array) -> Array:
    """Return a mask (n,): True if the user (n,) had interacted with the item (n,) strictly before the user's ``begin``
    (n_users,)."""
    history = dataset.history
    owner = np.repeat(np.arange(history.n_users), np.diff(history.offsets))
    past = history.times < begin[owner]
    known = np.unique(owner[past] * dataset.n_items + history.items[past])
    return np.isin(users * dataset.n_items + items, known)
