"""Choice of the users who get a computed list at a peak, and of those who get the kept one, by a policy trained with critics of cache-aware requests.

In the evening of this world there are more requests than lists can be computed. Three days are logged in which every
user gets a computed list with probability one half, as far as the capacity permits. For three more days with the same
users, each arm decides whose lists are computed first. Load levels are below and above the capacity; chain, critics
and actor are learnt from the log alone. Metric: clicks per user in the second three days. The deciding baseline
computes lists in order of arrival (``never kept``). Also reported: always the kept list; first the users without a
list and then those with the oldest one; critics that look ahead level by level (``expected``, ``coupled``); no
look-ahead; an actor learnt from a log in which the keen users got the computed lists; and, as an upper bound, the
true value of the current request. In the twin, kept lists are as good as computed ones. Stated beforehand: a gain in
the world, and none in the twin.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.components.comparison import TWIN, Arm, Component, Outcome
from taiji.core.component import NO_ITEM
from taiji.models.policy.cache_actor import CacheActor, CacheActorSettings
from taiji.models.policy.cache_critics import Form, fit_chain
from taiji.models.policy.session_returns import NO_ROW, followers
from taiji.world import World
from taiji.world.environment import WorldEnv
from taiji.world.mechanisms.load import Load
from taiji.world.policies import ContentPolicy

Array = NDArray[Any]
RATE, LOAD = 5, 6
"""Columns of an observation: click rate so far, and the load; the next column tells whether a list is kept."""
SHARE = 0.7
"""Share of requests whose lists can be computed, in the policy that the critics evaluate."""
First = Callable[["Service", Array, Array], Array]
"""Function from the service, the requesting users, and their states to priorities (B,); the lists with the highest are computed."""


class Service:
    """A world, and what the service knows about each user's kept list: when it was made, and the number of clicks at
    that time.
    """

    def __init__(self, env: WorldEnv, seen: Array) -> None:
        self.env, self.seen = env, seen
        self.load: Load = env.world.find(Load)
        self.since = np.zeros(len(seen))
        self.clicks = np.zeros(len(seen))

    def states(self, user: Array) -> Array:
        """Return the states (B, 8) of requesting users, without the load."""
        seen, kept = self.seen[user], self.load.has_cache(user).astype(np.float64)
        age = np.log1p(self.env.world.slot - self.since[user])
        clicked = np.log1p(self.env.world.public.clicked[user] - self.clicks[user])
        columns = [np.ones(len(user)), kept, kept * age, kept * clicked, seen[:, RATE], kept * seen[:, RATE]]
        return np.stack([*columns, seen[:, 1], seen[:, 2]], axis=1).astype(np.float64)

    def step(self, user: Array, wanted: Array) -> tuple[Array, Array]:
        """Serve the requests; return whether their lists were computed (B,), and their clicks."""
        action = np.zeros(len(self.seen), dtype=np.int64)
        action[user[wanted]] = 1
        before, clicked = self.load.lists.copy(), self.env.world.public.clicked[user].copy()
        self.seen, _, _, _, _ = self.env.step(action)
        now = self.load.lists[user]
        fresh = ((now != before[user]) & (now != NO_ITEM)).any(axis=1)
        self.since[user[fresh]] = self.env.world.slot
        self.clicks[user[fresh]] = self.env.world.public.clicked[user[fresh]]
        return fresh, self.env.world.public.clicked[user] - clicked


@dataclass(frozen=True, eq=False)
class Logged:
    """Service after the log, and the log: states (n, 8), actions, levels, followers and clicks (n,); ``keen`` is a log
    in which the keen users got the computed lists.
    """

    service: Service
    columns: tuple[Array, Array, Array, Array, Array]
    keen: tuple[Array, Array, Array, Array, Array]
    until: float


def data(place: str, seed: int, quick: bool) -> Logged:
    """Return the service after a log, together with the other log."""
    users, days = (80, 1) if quick else (1200, 3)
    logs = []
    for keen in (True, False):
        world = World("peak-load", seed, users=users, items=400, days=2 * days, candidates=20, joining=0.0)
        env = WorldEnv(world.twin("load") if place == TWIN else world)
        service = Service(env, env.reset(seed=seed)[0])
        logs.append(logged(service, days / service.env.world.slot_days, keen, np.random.default_rng([seed, 9])))
    return Logged(service, logs[1], logs[0], 2 * days / service.env.world.slot_days)


def logged(
    service: Service, until: float, keen: bool, random: np.random.Generator
) -> tuple[Array, Array, Array, Array, Array]:
    """Return the log of a service up to a slot."""
    keenness = service.env.world.traits["keenness"]
    rows: list[tuple[Array, ...]] = []
    while service.env.world.slot < until:
        user = np.flatnonzero(service.seen[:, 0] > 0)
        states, level = service.states(user), (service.seen[user, LOAD] > 1).astype(np.int64)
        chance = np.where(keenness[user] > 0, 0.95, 0.05) if keen else np.full(len(user), 0.5)
        fresh, clicks = service.step(user, random.random(len(user)) < chance)
        rows.append((states, fresh.astype(np.int64), level, clicks, user, np.full(len(user), len(rows))))
    states, action, level, clicks, user, turn = (np.concatenate(part) for part in zip(*rows))
    return states, action, followers(user, turn), level, clicks


def played(given: Logged, first: First, parameters: int) -> Outcome:
    """Return the result of an order of requests, for the users of the log in the days after it."""
    service = copy.deepcopy(given.service)
    clicks = requests = computed = 0.0
    while service.env.world.slot < given.until:
        user = np.flatnonzero(service.seen[:, 0] > 0)
        room = max(service.load.capacity - service.load.computed, 0)
        worth = first(service, user, service.states(user))
        wanted = np.zeros(len(user), dtype=bool)
        wanted[np.argsort(-worth, kind="stable")[:room]] = True
        fresh, gained = service.step(user, wanted & (worth > -np.inf))
        clicks, requests, computed = clicks + gained.sum(), requests + len(user), computed + fresh.sum()
    users = len(service.seen)
    metrics = {"clicks per user": clicks / users, "computed share": computed / max(requests, 1.0)}
    return Outcome(metrics["clicks per user"], metrics, parameters)


def learnt(form: Form, keen: bool = False, ahead: bool = True) -> Callable[[Logged, Mapping[str, Any], int], Outcome]:
    """Return the run of an actor."""

    def run(given: Logged, configuration: Mapping[str, Any], seed: int) -> Outcome:
        states, action, after, level, clicks = given.keen if keen else given.columns
        going = after != NO_ROW
        chain = fit_chain(level[going], level[after[going]], 2)
        settings = CacheActorSettings(
            form=form, share=SHARE, discount=configuration.get("discount", 0.8) if ahead else 0.0,
            ridge=configuration.get("ridge", 1e-3),
        )  # fmt: skip
        actor = CacheActor(settings).fit(states, action, after, level, clicks, chain)
        return played(given, lambda service, user, told: actor.lead(told), actor.critics.size)

    return run


def fixed(which: Literal["never", "always", "oldest", "truth"]) -> Callable[[Logged, Mapping[str, Any], int], Outcome]:
    """Return the run of an order that is not learnt."""

    def first(service: Service, user: Array, told: Array) -> Array:
        if which == "never":  # whoever comes first
            return np.random.default_rng([service.env.world.seed, service.env.world.slot]).random(len(user))
        if which == "always":
            return np.full(len(user), -np.inf)
        if which == "oldest":
            return np.asarray(np.where(told[:, 1] > 0, told[:, 2], np.inf))
        world = service.env.world
        observation, length = world.observation, world.scenario.slate
        computed = ContentPolicy(world).choose(observation, length).items
        kept = np.where(told[:, 1:2] > 0, service.load.cached(user), observation.candidates.items[:, :length])
        kept = np.where((kept != NO_ITEM) & observation.available[np.maximum(kept, 0)], kept, NO_ITEM)
        values = world.truth.list_values(observation, np.stack([computed, kept], axis=1))
        return np.asarray(values[:, 0] - values[:, 1])

    return lambda given, configuration, seed: played(given, first, 0)


TRIED: tuple[dict[str, Any], ...] = ({"discount": 0.8}, {"discount": 0.5})
RIDGES: tuple[dict[str, Any], ...] = ({"ridge": 1e-3}, {"ridge": 1e-2})
FIXED: tuple[dict[str, Any], ...] = ({}, {})
COMPONENT = Component(
    claim="an actor of cache-aware critics says better who is served what was kept than computing for whoever comes first",
    metric="clicks per user",
    arms={
        "CARL": Arm(learnt("eigen"), TRIED),
        "never kept": Arm(fixed("never"), FIXED),
        "expected": Arm(learnt("expected"), TRIED),
        "coupled": Arm(learnt("coupled"), TRIED),
        "nobody looks ahead": Arm(learnt("expected", ahead=False), RIDGES),
        "without first, then oldest": Arm(fixed("oldest"), FIXED),
        "always kept": Arm(fixed("always"), FIXED),
        "CARL, log of the keen": Arm(learnt("eigen", keen=True), TRIED),
        "truth known": Arm(fixed("truth"), FIXED),
    },
    data=data,
    same_parameters=False,
    tuning=1000,
)
