"""Does imitating how the most active users were served bring users back (SEC)?

A list is ordered by a weighted sum of five predictions. In the world ``retention``, pleasing lists bring users back.
For six weeks, each user is served with individual weights, drawn once per user, so that chance determines who is served
well. For ten more days, a policy learnt from this log serves the same users. A *tier* is about a third of the users, by
days with a request.

Places: in the world, only the lists make users differ in how often they come. In the twin, no list brings users back.
In ``confounded``, eager users return much sooner whatever they see, and the log gave them the lists that please least.
``active users`` is like the world, but users differ in their own activity, as in the scenario, so that tiers mostly
reflect this activity.

Metric: days with a request per user in the ten days. Arms: ``SEC`` clones each tier with a head of its own, and serves
a user with the head of the user's tier or of the next higher one; ``everybody cloned``, the deciding baseline, clones
all users alike; ``upper tier cloned`` clones the users of the upper tier alone; ``logged weights`` keeps each user's
weights, and ``mean weights`` uses the log's mean; ``TD3 on the log`` learns by reinforcement from the log; ``PPO in two
worlds`` learns by acting in two further worlds; ``law known``, the upper bound, puts all weight on the one predicted
outcome that brings users back. No learner is told which one this is.

Stated beforehand: a gain in the world, none in the twin, a loss in ``confounded``, and in ``active users`` no larger
gain than in the world. :mod:`benchmarks.components.comparison` explains the columns, the checks, and what is held equal
for all arms. The numbers of parameters differ.

    LONG_TERM=expert_cloning python -m benchmarks.long_term [--quick] [--json benchmarks/results/long_term.json]
"""

from __future__ import annotations

import copy
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
CONFOUNDED, ACTIVE = "confounded", "active users"
OWN_ACTIVITY = 0.5
"""Standard deviation of users' own activity in the place ``active users``, as a logarithm of visits."""
TIERS = 3
CLOCK_AND_SESSION = (1, 2, 3)
"""Columns of an observation that do not depend on the user's past: the time of day, and the position in the session."""
PREDICTIONS = -5
"""First of the columns with the standard deviations of the predictions over the candidates, counted from the end."""
Act = Callable[[Array], Array]
"""Function from observations (users, F) to weights of the predictions (users, K)."""


LOGGED_DAYS, PLAYED_DAYS = 42, 10
"""Number of days of the log, and number of days that a policy serves after it."""
EAGER = 1.0
"""Decrease of the logarithm of the time away per standard deviation of keenness, in the place ``confounded``."""
SALT = 1_000_003
"""Difference between the seeds of a log and those of the worlds in which PPO acts."""


@dataclass(frozen=True, eq=False)
class Episode:
    """Requests of an episode and what they led to.

    Attributes:
        states: (n, 8) part of each request's observation that a policy reads.
        weights: (n, K) weights with which they were served.
        user: (n,) users of the requests.
        day: (n,) days of the requests.
        days: (users,) number of days with a request.
        reward: reward per user.
    """

    states: Array
    weights: Array
    user: Array
    day: Array
    days: Array
    reward: float


@dataclass(frozen=True, eq=False)
class Logged:
    """An environment after its log.

    Attributes:
        env: the environment.
        seen: its last observation.
        told: the information of its last step.
        place: name of the place.
        seed: seed of the world.
        log: the log.
        tier: (users,) tier of each user.
        own: (users, K) weights with which each user was served.
        until: day until which a policy serves.
        more: number of days for which it serves.
    """

    env: WorldEnv
    seen: Array
    told: dict[str, Any]
    place: str
    seed: int
    log: Episode
    tier: Array
    own: Array
    until: int
    more: int


def play(
    env: WorldEnv, seen: Array, told: dict[str, Any], act: Act, until: int
) -> tuple[Episode, Array, dict[str, Any]]:
    """Serve with a policy until a day. Return the episode, its last observation, and the information of its last
    step."""
    users, rows, reward = len(seen), [], 0.0
    while told["slot"] < until:
        asks = np.flatnonzero(seen[:, 0] > 0)
        weights = np.clip(act(seen), 0.0, 1.0).astype(np.float32)
        rows.append((seen[asks], weights[asks], asks, np.full(len(asks), told["slot"])))
        seen, gained, _, _, told = env.step(weights)
        reward += gained
    states, shown, user, day = (np.concatenate(part) for part in zip(*rows))
    days = np.bincount(np.unique(np.stack([user, day]), axis=1)[0], minlength=users)
    return Episode(known(states), shown, user, day, days, reward), seen, told


def known(seen: Array) -> Array:
    """Return the part of the observations that a policy reads. It does not show how often the user has come."""
    return np.concatenate([seen[:, CLOCK_AND_SESSION], seen[:, PREDICTIONS:]], axis=1).astype(np.float64)


def environment(place: str, seed: int, users: int, days: int) -> WorldEnv:
    """Return the environment of a place."""
    world = World("retention", seed, users=users, items=400, days=days, candidates=20, slot_hours=24, joining=0.0,
                  longest=8, activity=OWN_ACTIVITY if place == ACTIVE else 0.0)  # fmt: skip
    if place == TWIN:
        return WorldEnv(world.twin("retention"))
    settings = world.scenario.mechanisms["retention"]
    changed = settings.model_copy(update={"confounded": EAGER if place == CONFOUNDED else 0.0})
    scenario = world.scenario.model_copy(update={"mechanisms": {**world.scenario.mechanisms, "retention": changed}})
    return WorldEnv(World(scenario, seed))


def data(place: str, seed: int, quick: bool) -> Logged:
    """Return the environment after its log, in which each user was served with individual weights."""
    users, length, more = (100, 4, 4) if quick else (1000, LOGGED_DAYS, PLAYED_DAYS)
    env = environment(place, seed, users, length + more)
    random = np.random.default_rng([seed, 5])
    own = random.dirichlet(np.full(len(env.fused), 0.5), size=users)
    if place == CONFOUNDED:  # the same weights, assigned so that eager users get those that please least
        eager = env.world.traits["keenness"] / max(float(env.world.traits["keenness"].std()), 1e-12)
        turn = np.argsort(-(eager + random.normal(size=users)))
        given = own[np.argsort(own[:, env.fused.index("pleased")])]
        own = np.empty_like(own)
        own[turn] = given
    seen, told = env.reset(seed=seed)
    log, seen, told = play(env, seen, told, lambda seen: own, length)
    tier, came = np.zeros(users, np.int64), log.days > 0  # users who never came cannot be cloned
    tier[came] = retention_tiers(log.days[came], TIERS)
    return Logged(env, seen, told, place, seed, log, tier, own, length + more, more)


def played(given: Logged, act: Act, parameters: int) -> Outcome:
    """Return the outcome of a policy for the users of the log, in the days after it."""
    env = copy.deepcopy(given.env)
    found, _, _ = play(env, given.seen, given.told, act, given.until)
    pleased = env.fused.index("pleased")
    share = found.weights[:, pleased] / np.maximum(found.weights.sum(axis=1), 1e-9)
    metrics = {
        "days per user": float(found.days.mean()),
        "pleased per user": found.reward,
        "weight of pleased": float(share.mean()),
    }
    return Outcome(metrics["days per user"], metrics, parameters)


def cloning(tiers: int, upper: bool = False) -> Callable[[Logged, Mapping[str, Any], int], Outcome]:
    """Return the function that clones the users in this number of tiers, or the upper tier alone, and serves with the
    result."""

    def run(given: Logged, configuration: Mapping[str, Any], seed: int) -> Outcome:
        log = given.log
        level = given.tier if tiers > 1 else np.zeros(len(given.tier), np.int64)
        rows = given.tier[log.user] == given.tier.max() if upper else np.ones(len(log.user), bool)
        settings = ExpertCloningSettings(
            tiers=int(level.max()) + 1, epochs=2, batch=1024, learning_rate=1e-2, device="cpu", **configuration
        )
        made = ExpertCloning(settings).fit(log.states[rows], log.weights[rows], level[log.user[rows]], seed=seed)
        size = sum(parameter.numel() for parameter in made.network.parameters())
        return played(given, lambda seen: made.act(known(seen), level), size)

    return run


def constant(which: str) -> Callable[[Logged, Mapping[str, Any], int], Outcome]:
    """Return the function that serves with weights that are not learnt: each user's own (``logged``), their mean
    (``mean``), or all weight on the outcome that brings users back (``law``)."""

    def run(given: Logged, configuration: Mapping[str, Any], seed: int) -> Outcome:
        if which == "logged":
            return played(given, lambda seen: given.own, 0)
        one = given.log.weights.mean(axis=0) if which == "mean" else 1.0 * (np.array(given.env.fused) == "pleased")
        return played(given, lambda seen: np.tile(one, (len(seen), 1)), len(one))

    return run


def scale(given: Logged) -> tuple[Array, Array]:
    """Return mean and standard deviation of the states of the log."""
    return given.log.states.mean(axis=0), np.maximum(given.log.states.std(axis=0), 1e-6)


def by_td3(given: Logged, configuration: Mapping[str, Any], seed: int) -> Outcome:
    """Run TD3 on the log. A transition goes from a user's first request of a day to the first request of the next day
    on which the user comes."""
    from benchmarks.environments.retention_days import td3

    log = given.log
    order = np.lexsort((np.arange(len(log.day)), log.day, log.user))
    user, day = log.user[order], log.day[order]
    first = order[np.r_[True, (user[1:] != user[:-1]) | (day[1:] != day[:-1])]]
    same = log.user[first[1:]] == log.user[first[:-1]]
    now, then = first[:-1][same], first[1:][same]
    away = -(log.day[then] - log.day[now]).astype(np.float64)
    act, size = td3((log.states[now], log.weights[now], away, log.states[then]), known, dict(configuration), seed)
    return played(given, act, size)


def by_ppo(given: Logged, configuration: Mapping[str, Any], seed: int) -> Outcome:
    """Run PPO, which first learns by acting in worlds with other seeds."""
    from benchmarks.environments.retention_days import PPO_WORLDS, ppo

    users = len(given.tier)
    envs = [environment(given.place, seed + SALT * (n + 1), users, given.more) for n in range(PPO_WORLDS)]
    act, size = ppo(envs, given.more, known, scale(given), configuration["rate"], seed)
    return played(given, act, size)


DIVERSITY: tuple[dict[str, Any], ...] = ({"diversity": 0.0}, {"diversity": 0.05})
CAPACITY: tuple[dict[str, Any], ...] = ({"diversity": 0.0}, {"diversity": 0.0, "hidden": 16})
FIXED: tuple[dict[str, Any], ...] = ({}, {})
COMPONENT = Component(
    claim="cloning by tiers of retention brings users back more often than cloning everybody",
    metric="days per user",
    arms={
        "SEC": Arm(cloning(TIERS), DIVERSITY),
        "everybody cloned": Arm(cloning(1), CAPACITY),
        "upper tier cloned": Arm(cloning(1, upper=True), CAPACITY),
        "logged weights": Arm(constant("logged"), FIXED),
        "mean weights": Arm(constant("mean"), FIXED),
        "TD3 on the log": Arm(by_td3, ({"discount": 0.0}, {"discount": 0.9})),
        "PPO in two worlds": Arm(by_ppo, ({"rate": 3e-4}, {"rate": 3e-3})),
        "law known": Arm(constant("law"), FIXED),
    },
    data=data,
    same_parameters=False,
    places=(WORLD, TWIN, CONFOUNDED, ACTIVE),
    tuning=1000,
    fails=(CONFOUNDED,),
)
