"""Predicted values of requests, in a world where more lists are requested in the evening than can be computed, and in
the twin, where cached lists are as good as fresh ones.

In the log, lists were computed as far as the load allowed. Critics are fitted on half of the users. For requests of
the other half, they predict the clicks of the rest of the user's history, discounted per request; the truth is the
observed return. Metric: mean squared error. The deciding baseline is a critic without the cache's state; critics of
both states that learn from the state as it occurred (coupled) are reported, too. In this world the cache depends on
what was served, so the identity of eigen coordinates holds only approximately. Expected: a smaller error than without
the state in the world, and no smaller error in the twin.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.components.comparison import TWIN, Arm, Component, Outcome
from taiji.models.policy.cache_critics import CacheCritics, CacheCriticsSettings, fit_chain
from taiji.models.policy.session_returns import NO_ROW, followers, returns
from taiji.world import World

Array = NDArray[Any]
DISCOUNT = 0.8
RIDGE = 1e-3


@dataclass(frozen=True, eq=False)
class Log:
    """Requests of a log, in two halves by user.

    Attributes:
        features: (n, F).
        level: (n,) 1 where the cache served.
        rewards: (n,) clicks.
        after: (n,) row of the user's next request, or ``NO_ROW``.
        train: (n,) bool, requests of one half of the users.
        test: (n,) bool, requests of the other users in the first two thirds of the time.
        returned: (n,) discounted returns.
    """

    features: Array
    level: Array
    rewards: Array
    after: Array
    train: Array
    test: Array
    returned: Array


def data(place: str, seed: int, quick: bool) -> Log:
    """Return the requests of one log."""
    users, days = (150, 4) if quick else (800, 10)
    world = World("peak-load", seed, users=users, items=400, days=days, candidates=20, joining=0.0)
    world = world.twin("load") if place == TWIN else world
    lists = (
        world.log("content@0.5").events.group_by("user_id", "timestamp")
        .agg(pl.col("click").sum(), (pl.col("served_from").first() == "cache").alias("cached"))
        .sort("timestamp", "user_id")
    )  # fmt: skip
    user, time = lists["user_id"].to_numpy(), lists["timestamp"].dt.epoch("us").to_numpy()
    after = followers(user, time)
    clicks, hour = lists["click"].to_numpy().astype(np.float64), 2 * np.pi * (time / 3.6e9 % 24) / 24
    so_far = lists.with_columns(  # the user's lists and clicks before the request
        seen=pl.int_range(pl.len()).over("user_id"), before=pl.col("click").cum_sum().over("user_id") - pl.col("click")
    )
    seen, before = so_far["seen"].to_numpy().astype(np.float64), so_far["before"].to_numpy()
    rate = (before + 1) / (seen + 2)
    features = np.stack([np.ones(len(user)), np.sin(hour), np.cos(hour), rate, np.log1p(seen)], axis=1)
    train = np.random.default_rng([seed, 7]).permutation(users)[: users // 2]
    inside = np.isin(user, train)
    early = time < time.min() + (time.max() - time.min()) * 2 // 3
    return Log(
        features,
        lists["cached"].to_numpy().astype(np.int64),
        clicks,
        after,
        inside,
        ~inside & early,
        returns(clicks, after, DISCOUNT),
    )


def rows_of(log: Log) -> tuple[Array, Array, Array, Array]:
    """Return features, followers, levels and rewards of the training half, with renumbered rows."""
    number = np.full(len(log.train), NO_ROW)
    number[log.train] = np.arange(int(log.train.sum()))
    after = log.after[log.train]
    return (
        log.features[log.train],
        np.where(after == NO_ROW, NO_ROW, number[after]),
        log.level[log.train],
        log.rewards[log.train],
    )


def error(log: Log, values: Array, parameters: int) -> Outcome:
    """Return the mean squared error of values (n,) on the test requests."""
    return Outcome(0.0, {"squared error": float(np.square(values - log.returned)[log.test].mean())}, parameters)


def eigen(log: Log, configuration: Mapping[str, Any], seed: int) -> Outcome:
    """Run critics in eigen coordinates, under the chain of the training half."""
    features, after, level, rewards = rows_of(log)
    made = CacheCritics(CacheCriticsSettings(discount=DISCOUNT, ridge=RIDGE)).fit(features, after, level, rewards)
    going = after != NO_ROW
    values = made.values(log.features, fit_chain(level[going], level[after[going]], 2))
    return error(log, values[np.arange(len(values)), log.level], made.heads.size)


def least_squares(features: Array, after: Array, rewards: Array) -> Array:
    """Return the weights (F,) of one critic by least squares on temporal differences."""
    ahead = np.where((after != NO_ROW)[:, None], features[after], 0.0)
    system = features.T @ (features - DISCOUNT * ahead) / len(features) + RIDGE * np.eye(features.shape[1])
    return np.asarray(np.linalg.solve(system, features.T @ rewards / len(features)))


def without_state(log: Log, configuration: Mapping[str, Any], seed: int) -> Outcome:
    """Run one critic that does not know whether the cache served."""
    features, after, _, rewards = rows_of(log)
    weights = least_squares(features, after, rewards)
    return error(log, log.features @ weights, weights.size)


def coupled(log: Log, configuration: Mapping[str, Any], seed: int) -> Outcome:
    """Run critics of both states, each trained with the state that actually followed."""
    _, after, _, rewards = rows_of(log)
    both = (np.eye(2)[log.level][:, :, None] * log.features[:, None, :]).reshape(len(log.level), -1)
    weights = least_squares(both[log.train], after, rewards)
    return error(log, both @ weights, weights.size)


COMPONENT = Component(
    claim="critics that read the cache's state predict returns better",
    metric="squared error",
    arms={"CARL": Arm(eigen), "without the state": Arm(without_state), "coupled": Arm(coupled)},
    data=data,
    direction="lower",
    same_parameters=False,
)
