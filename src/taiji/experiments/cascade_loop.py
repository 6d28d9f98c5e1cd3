"""Closed-loop evaluation: serve a recommender's lists in the simulated world of its log, and compare the true outcomes.

The world is run once per policy. Until the test period, the scenario's logging policy serves, so each run reproduces
the log. Then the policy serves the selected users. All runs have the same users and random draws, so each user is
their own control. A cascade (recommender) is not retrained; it reads the users' histories, which are updated at every
midnight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from taiji.cascade.cascade import Cascade
from taiji.core.component import NO_ITEM, Requests, Slate
from taiji.core.progress import progress
from taiji.data.dataset import Dataset
from taiji.experiments.closed_loop import METRICS, Arms
from taiji.metrics.bootstrap import Ratio
from taiji.metrics.intervals import compare, estimate
from taiji.world.exposure import Exposure
from taiji.world.log import HORIZON, run
from taiji.world.observation import Choice, Observation, SlatePolicy
from taiji.world.outcomes import Totals
from taiji.world.scorer_policy import dense_ids
from taiji.world.world import World
from taiji.world.world_time import to_days, to_micros

Array = NDArray[Any]
SPARE = 20
"""Number of items requested in addition to the list's length, because some may have become unavailable since the end of
the log."""


class CascadePolicy:
    """Policy that shows a cascade's lists.

    Args:
        world: world to act in.
        dataset: log of this world on which the components were trained.
        compose: function that creates the cascade for a dataset with the same users and items and newer events.
        featured: function that adds to requests the features that the cascade reads.

    Raises:
        InputError: the log has users or items missing from the world.
    """

    def __init__(
        self,
        world: World,
        dataset: Dataset,
        compose: Callable[[Dataset], Cascade],
        featured: Callable[[Requests], Requests] | None = None,
    ) -> None:
        self._log, self._compose, self._featured = dataset, compose, featured
        self._user = dense_ids(dataset.users["user_id"].to_numpy(), world.scenario.users, "users")
        self._item = dense_ids(dataset.items["item_id"].to_numpy(), world.scenario.items, "items")
        self._ids = dataset.items["item_id"].to_numpy()
        self._shown: list[pl.DataFrame] = []
        self._end = int(dataset.events["time"].max() or 0)  # type: ignore[arg-type]
        self._day, self._cascade = -1, compose(dataset)

    def learn(self, exposure: Exposure) -> None:
        """Record exposures and clicks after the end of the log; the cascade reads them from the next midnight on."""
        row, place = np.nonzero(exposure.shown & (to_micros(exposure.time) > self._end)[:, None])
        time, click = to_micros(exposure.time)[row], exposure.outcome["click"][row, place]
        frame = {"user": self._user[exposure.user[row]], "item": self._item[exposure.items[row, place]], "time": time}
        frame |= {"click": click, "matured_at": time + np.where(click == 1, HORIZON, 0)}
        if "buy" in exposure.outcome:
            frame["conversion"] = exposure.outcome["buy"][row, place]
        self._shown.append(pl.DataFrame(frame).filter((pl.col("user") >= 0) & (pl.col("item") >= 0)))

    def choose(self, observation: Observation, length: int) -> Choice:
        """See :class:`~taiji.world.observation.SlatePolicy`; users missing from the log get the candidates in the
        given order."""
        day = int(to_days(observation.requests.time).max(initial=0.0))
        if day != self._day:
            self._day = day
            if self._shown:
                self._cascade = self._compose(self._newest(day))
        user = self._user[observation.requests.user]
        rows = np.flatnonzero(user >= 0)
        ranked = np.full((len(user), length + SPARE), NO_ITEM, dtype=np.int64)
        if len(rows):
            columns = {name: values[rows] for name, values in observation.requests.columns.items()}
            asked = Requests(user[rows], observation.requests.time[rows], columns)
            if self._featured is not None:
                asked = self._featured(asked)
            found = self._cascade.recommend(asked, length + SPARE).slate.items
            ranked[rows, : found.shape[1]] = np.where(found == NO_ITEM, NO_ITEM, self._ids[found])
        return Choice(_first_available(ranked, observation, length))

    def _newest(self, day: int) -> Dataset:
        """Return the log extended by the exposures before a midnight."""
        log, midnight = self._log, to_micros(np.array([float(day)]))[0]
        rows = pl.concat(self._shown).filter(pl.col("time") < midnight).with_columns(exposed=pl.lit(True))
        known = rows.select(pl.col(name).cast(log.events.schema[name]) for name in rows.columns)
        events = pl.concat([log.events.drop("event"), known], how="diagonal").sort("time", "user", maintain_order=True)
        return log.with_users(log.users, events.with_row_index("event"))


class OverCatalogue:
    """Policy that chooses among all available items instead of the world's candidates.

    Args:
        inner: the policy.
    """

    def __init__(self, inner: SlatePolicy) -> None:
        self.inner = inner

    def choose(self, observation: Observation, length: int) -> Choice:
        """See :class:`~taiji.world.observation.SlatePolicy`."""
        items = np.flatnonzero(observation.available)
        every = Slate(np.broadcast_to(items, (len(observation), len(items))))
        return self.inner.choose(replace(observation, candidates=every), length)


def _first_available(ranked: Array, observation: Observation, length: int) -> Array:
    """Return the first ``length`` available items (B, length) of rankings, padded with the requests' candidates."""
    every = np.concatenate([ranked, observation.candidates.items], axis=1)
    usable = (every != NO_ITEM) & observation.available[every]
    out = np.full((len(every), length), NO_ITEM, dtype=np.int64)
    for row, (items, there) in enumerate(zip(every, usable)):
        chosen = list(dict.fromkeys(items[there].tolist()))[:length]
        out[row, : len(chosen)] = chosen
    return out


def serve_world(
    world: World,
    policies: Mapping[str, Callable[[World], SlatePolicy | CascadePolicy]],
    start: int,
    days: int,
    users: Array,
    against: str,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """Serve the world with each policy from a time on, and compare the users' outcomes.

    Args:
        world: world that generated the log; it is reset.
        policies: policy factories by name.
        start: microseconds; the policies serve from the first midnight at or after this time.
        days: total days of the world.
        users: (S,) users served by the policies; the logging policy serves the rest.
        against: policy that the others are compared with.
        resamples, level, seed: number of bootstrap resamples of users, level of the intervals, and random seed.

    Returns:
        ``first_day``, ``days``, ``users`` and ``metrics``: one row per policy and metric with the mean per user, its
        interval, and the paired ``difference`` from ``against``. If the world ends before the policies could serve a
        day, ``days`` is 0 and ``metrics`` is empty.
    """
    first = int(np.ceil(to_days(np.array([start]))[0] - 1e-9))
    if first >= days:
        return {"first_day": first, "days": 0, "users": len(users), "metrics": []}
    served = np.zeros(world.scenario.users, dtype=bool)
    served[users] = True
    totals: dict[str, dict[str, Array]] = {}
    with progress(f"serving in {world.scenario.name}", len(policies), unit="policies") as update:
        for number, (name, make) in enumerate(policies.items()):
            totals[name] = _served(world, make, first, days, served)
            update(number + 1)
    own = {name: {metric: values[users] for metric, values in found.items()} for name, found in totals.items()}
    rows = []
    bootstrap: dict[str, Any] = {"resamples": resamples, "level": level, "seed": seed}
    for metric in METRICS:
        for name, values in own.items():
            if metric not in values:
                continue
            mine = Ratio.of_values(values[metric])
            row: dict[str, Any] = {"policy": name, "metric": metric, **estimate(mine, **bootstrap)}
            if name != against:
                other = Ratio.of_values(own[against][metric])
                row["difference"] = {"against": against, **compare(mine, other, **bootstrap)}
            rows.append(row)
    return {"first_day": first, "days": days - first, "users": len(users), "metrics": rows}


def _served(
    world: World,
    make: Callable[[World], SlatePolicy | CascadePolicy],
    first: int,
    days: int,
    served: Array,
) -> dict[str, Array]:
    """Return the totals (users,) per metric over the days from ``first`` on."""
    world.reset()
    policy = make(world)
    arms = Arms(world, (world.scenario.policy, policy), served, first)
    totals = Totals(world, days)
    for exposure in run(world, arms, days):
        totals.add(exposure)
        if isinstance(policy, CascadePolicy):
            policy.learn(exposure)
    return {
        name: totals.by_day(name)[:, first:].sum(axis=1)
        for name in METRICS
        if name in totals.sums or name == "active_days"
    }
