"""Users who come back because they were served well, and users who come back anyway.

In the log each user was served by weights of their own, drawn once, so that who was served well is chance. World: good lists bring users back. Twin:
nothing does. Third place, ``confounded``: eager users come back whatever they are shown, by far more than lists can move. Everything is cloned
from one episode of the log and plays an episode of the same users. Metric: days with a request per user. Cloning everybody alike
decides; cloning the upper tier alone and the log's mean weights are told. Expected: a gain in the world, none in the twin, none where it is confounded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.components.comparison import TWIN, WORLD, Arm, Component, Outcome
from taiji.models.policy.expert_cloning import ExpertCloning, ExpertCloningSettings, retention_tiers
from taiji.world import World
from taiji.world.environment import WorldEnv

Array = NDArray[Any]
CONFOUNDED = "confounded"
TIERS = 3
CLOCK_AND_SESSION = (1, 2, 3)
"""Columns of an observation that are known whatever the user did before: hour and place in the session."""
PREDICTIONS = -5
"""Columns from there on: spreads of the predictions."""
Act = Callable[[Array], Array]
"""Observations (users, F) to weights (users, K)."""


@dataclass(frozen=True, eq=False)
class Episode:
    """Observations (n, F) and weights (n, K) of requests, their users (n,), days with a request (users,), and the reward per user."""

    states: Array
    weights: Array
    user: Array
    days: Array
    reward: float


@dataclass(frozen=True, eq=False)
class Logged:
    """Environment, its seed, and the episode that was logged there."""

    env: WorldEnv
    seed: int
    log: Episode
    tier: Array


def play(env: WorldEnv, seed: int, act: Act) -> Episode:
    """Play one episode of the users of a seed."""
    seen, told = env.reset(seed=seed)
    users, slots, rows, reward, over = len(seen), set(), [], 0.0, False
    while not over:
        asks = np.flatnonzero(seen[:, 0] > 0)
        slots |= {(int(user), told["slot"]) for user in asks}
        weights = np.clip(act(seen), 0.0, 1.0).astype(np.float32)
        rows.append((seen[asks], weights[asks], asks))
        seen, gained, _, over, told = env.step(weights)
        reward += gained
    states, shown, user = (np.concatenate(part) for part in zip(*rows))
    days = np.bincount([user for user, _ in slots], minlength=users)
    return Episode(known(states), shown, user, days, reward)


def known(seen: Array) -> Array:
    """Return what a policy reads of observations: nothing that tells how often the user has come."""
    return np.concatenate([seen[:, CLOCK_AND_SESSION], seen[:, PREDICTIONS:]], axis=1).astype(np.float64)


def data(place: str, seed: int, quick: bool) -> Logged:
    """Return an episode whose users were each served by weights of their own."""
    users, days = (100, 7) if quick else (400, 21)
    world = World("retention", seed, users=users, items=400, days=days, candidates=20, slot_hours=24, joining=0.0)
    settings = world.scenario.mechanisms["retention"]
    if place == TWIN:
        world = world.twin("retention")
    else:
        strength = 1.5 if place == CONFOUNDED else 0.0
        changed = settings.model_copy(update={"confounded": strength})
        scenario = world.scenario.model_copy(update={"mechanisms": {**world.scenario.mechanisms, "retention": changed}})
        world = World(scenario, seed)
    env = WorldEnv(world)
    own = np.random.default_rng([seed, 5]).dirichlet(np.full(len(env.fused), 0.5), size=users)
    log = play(env, seed, lambda seen: own)
    tier, came = np.zeros(users, np.int64), log.days > 0  # of whoever never came nothing can be cloned
    tier[came] = retention_tiers(log.days[came], TIERS)
    return Logged(env, seed, log, tier)


def played(given: Logged, act: Act, parameters: int) -> Outcome:
    """Return what a policy brings to the users of the log."""
    found = play(given.env, given.seed, act)
    return Outcome(0.0, {"days per user": float(found.days.mean()), "pleased per user": found.reward}, parameters)


def cloning(tiers: int, upper: bool = False) -> Callable[[Logged, Mapping[str, Any], int], Outcome]:
    """Return the run of cloning in so many tiers, or of the upper tier alone."""

    def run(given: Logged, configuration: Mapping[str, Any], seed: int) -> Outcome:
        log = given.log
        level = given.tier if tiers > 1 else np.zeros(len(given.tier), np.int64)
        rows = given.tier[log.user] == given.tier.max() if upper else np.ones(len(log.user), bool)
        settings = ExpertCloningSettings(tiers=int(level.max()) + 1, device="cpu", **configuration)
        made = ExpertCloning(settings).fit(log.states[rows], log.weights[rows], level[log.user[rows]], seed=seed)
        size = sum(parameter.numel() for parameter in made.network.parameters())
        return played(given, lambda seen: made.act(known(seen), level), size)

    return run


def mean_weights(given: Logged, configuration: Mapping[str, Any], seed: int) -> Outcome:
    """Run the log's mean weights for everybody."""
    mean = given.log.weights.mean(axis=0)
    return played(given, lambda seen: np.tile(mean, (len(seen), 1)), len(mean))


COMPONENT = Component(
    claim="cloning by tiers of retention brings users back more often than cloning everybody",
    metric="days per user",
    arms={
        "SEC": Arm(cloning(TIERS), ({"diversity": 0.05},)),
        "everybody cloned": Arm(cloning(1), ({"diversity": 0.0},)),
        "upper tier cloned": Arm(cloning(1, upper=True), ({"diversity": 0.0},)),
        "mean weights": Arm(mean_weights),
    },
    data=data,
    same_parameters=False,
    places=(WORLD, TWIN, CONFOUNDED),
)
