"""Do critics that know whether a request was served from the cache predict returns better?

In the world ``peak-load``, more lists are requested in the evening than can be computed, and the remaining requests get
cached lists. In the twin, cached lists are as good as new ones. In the log, lists were computed as far as the capacity
allowed. Critics are fitted to the requests of half of the users. For requests of the other half in the first two thirds
of the time, they predict the *return*: the user's clicks from this request on, discounted by 0.8 per request.

Metric: mean squared error from the observed return; lower is better. Arms: ``CARL``, critics in eigenvector
coordinates of the cache's Markov chain (the *eigen form*), one head per state of the cache; ``without the state``, the deciding baseline, one critic that does not read this state;
``coupled``, critics of both states that learn from the state that actually followed. The eigen form assumes that the
cache does not depend on what was served, which holds only approximately here.

Stated beforehand: in the world, the error of ``CARL`` is smaller than that of ``without the state``; in the twin, it is
not. :mod:`benchmarks.components.comparison` explains the columns, the checks, and what is held equal for all arms. The
numbers of parameters differ.

    LONG_TERM=cache_critics python -m benchmarks.long_term [--quick] [--json benchmarks/results/long_term.json]
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
        level: (n,) 1 if the request was served from the cache, otherwise 0.
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
    so_far = lists.with_columns(  # numbers of the user's lists and clicks before the request
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
    """Return features, next rows, levels and rewards of the training half, with the rows renumbered."""
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
    """Return the outcome of predicted values (n,): their mean squared error on the test requests."""
    return Outcome(0.0, {"squared error": float(np.square(values - log.returned)[log.test].mean())}, parameters)


def eigen(log: Log, configuration: Mapping[str, Any], seed: int) -> Outcome:
    """Run the critics in the eigen form, under the Markov chain of the levels in the training half."""
    features, after, level, rewards = rows_of(log)
    made = CacheCritics(CacheCriticsSettings(discount=DISCOUNT, ridge=RIDGE)).fit(features, after, level, rewards)
    going = after != NO_ROW
    values = made.values(log.features, fit_chain(level[going], level[after[going]], 2))
    return error(log, values[np.arange(len(values)), log.level], made.heads.size)


def least_squares(features: Array, after: Array, rewards: Array) -> Array:
    """Return the weights (F,) of one critic, by least squares on temporal differences."""
    ahead = np.where((after != NO_ROW)[:, None], features[after], 0.0)
    system = features.T @ (features - DISCOUNT * ahead) / len(features) + RIDGE * np.eye(features.shape[1])
    return np.asarray(np.linalg.solve(system, features.T @ rewards / len(features)))


def without_state(log: Log, configuration: Mapping[str, Any], seed: int) -> Outcome:
    """Run one critic that does not know whether the cache served."""
    features, after, _, rewards = rows_of(log)
    weights = least_squares(features, after, rewards)
    return error(log, log.features @ weights, weights.size)


def coupled(log: Log, configuration: Mapping[str, Any], seed: int) -> Outcome:
    """Run critics of both states, which learn from the state that actually followed."""
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
