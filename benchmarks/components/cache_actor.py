"""Who should get a newly computed list at peak load? A policy trained with cache-aware critics, compared with chance.

In the world ``peak-load``, more lists are requested than can be computed. The capacity of every hour is 0.4 times the
number of requests of an average hour. A user whose list is not computed gets the *kept list*, the rest of an earlier
ranking. In the log of nine days, every request asks for a computed list with probability one half, and gets one as far
as the capacity permits. For three more days with the same users, each arm gives a priority to every request when it
arrives. A list is computed if the priority reaches a threshold, which depends on the hour's remaining capacity and
usual demand. The state describes the user and the kept list: its age, its value for the user's present profile, and the
share of it that is still available. Critics distinguish two load levels, below and above the capacity. The Markov chain
of the levels, the critics and the actor are learnt from the log alone. In the twin, kept lists are as good as computed
ones.

Metric: expected clicks per user in the three days, computed from the world's formula for the lists that were shown.
Arms:

- ``CARL``: the actor with critics of the *eigen* form, which takes future load levels into account through the
  eigenvectors of the levels' chain. The critics of ``expected`` take the mean over the next levels instead, and those
  of ``coupled`` the observed next level. The critics of ``nobody looks ahead`` predict the clicks of the current
  request alone.
- ``by lot``, the deciding baseline: random priorities, same threshold.
- fixed rules: ``in order of arrival`` (no threshold), ``always kept``, and ``without first, then oldest`` (users
  without a kept list, then those with the oldest one).
- ``CARL, log of the keen``: learnt from a log in which the users who click more got most of the computed lists.
- ``truth known``, the upper bound: priority by the true value of the current request.

Stated beforehand: a gain in the world, none in the twin. :mod:`benchmarks.components.comparison` explains the columns,
the checks, and what is held equal for all arms.

    LONG_TERM=cache_actor python -m benchmarks.long_term [--quick] [--json benchmarks/results/long_term.json]
"""

from __future__ import annotations

import copy
from collections import deque
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
from taiji.world.scenario import load_scenario

Array = NDArray[Any]
RATE, LOAD = 5, 6
"""Columns of an observation: the user's click rate so far, and the load."""
LOGGED_DAYS, PLAYED_DAYS = 9, 3
"""Number of days of the log, and number of days that each arm serves after it."""
CAPACITY = 0.4
"""Number of lists that can be computed per hour (one slot of the world), relative to the requests of an average
hour."""
LATEST = 1000
"""Number of latest requests from whose priorities the threshold is computed."""
STRONGEST = 3.0
"""Length at which the length of a user's profile is capped in states."""
First = Callable[["Service", Array, Array], Array]
"""Function from (service, requesting users, their states) to the priorities (B,) of the requests. Requests with the
highest priorities get computed lists."""


class Service:
    """A world, and what the service knows about each user's kept list: the slot in which it was computed (``since``),
    and the user's number of clicks at that time (``clicks``)."""

    def __init__(self, env: WorldEnv, seen: Array) -> None:
        self.env, self.seen = env, seen
        self.load: Load = env.world.find(Load)
        self.since = np.zeros(len(seen))
        self.clicks = np.zeros(len(seen))

    def states(self, user: Array) -> Array:
        """Return the states (B, 12) of the requesting users. They do not include the load."""
        seen, kept = self.seen[user], self.load.has_cache(user).astype(np.float64)
        age = np.log1p(self.env.world.slot - self.since[user])
        clicked = np.log1p(self.env.world.public.clicked[user] - self.clicks[user])
        columns = [np.ones(len(user)), kept, kept * age, kept * clicked, seen[:, RATE], kept * seen[:, RATE]]
        known, worth, left = self.summary(user)
        columns += [seen[:, 1], seen[:, 2], known, kept * known, worth, left]
        return np.stack(columns, axis=1).astype(np.float64)

    def summary(self, user: Array) -> tuple[Array, Array, Array]:
        """Return three arrays (B,) about the requesting users.

        These are the length of the profile, at most :data:`STRONGEST`; the mean product of the profile with the titles
        of the kept list; and the share of the kept list that is still available.
        """
        public, items = self.env.world.public, self.load.cached(user)
        here = (items != NO_ITEM) & self.env.world.observation.available[np.maximum(items, 0)]
        profile = public.profile[user]
        known = np.linalg.norm(profile, axis=1)
        unit = profile / np.maximum(known, 1.0)[:, None]
        worth = (np.einsum("bt,blt->bl", unit, public.text_topics[np.maximum(items, 0)]) * here).mean(axis=1)
        return np.minimum(known, STRONGEST), worth, here.mean(axis=1)

    def values(self, user: Array) -> Array:
        """Return the true expected clicks (B, 2) of a computed list, and of the list that is shown if none is
        computed."""
        world, observation, length = self.env.world, self.env.world.observation, self.env.world.scenario.slate
        computed = ContentPolicy(world).choose(observation, length).items
        plain = observation.candidates.items[:, :length]
        kept, _ = self.load.left(user, observation.available)
        kept = np.where((kept == NO_ITEM).all(axis=1, keepdims=True), plain, kept)
        lists = np.stack([computed, kept if self.load.settings.stale else computed], axis=1)
        return world.truth.list_values(observation, lists)

    @property
    def hour(self) -> int:
        """Current hour of the day, 0 to 23."""
        return int(self.env.world.slot * self.env.world.slot_days * 24) % 24

    def step(self, user: Array, wanted: Array) -> tuple[Array, Array]:
        """Serve the requests of ``user``; ``wanted`` is True for those that should get a computed list. Return whether
        their lists were computed (B,), and their clicks (B,)."""
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
    """A service after its log.

    Attributes:
        service: the service.
        columns: the log: states (n, 12), and actions, rows of the users' next requests, load levels and clicks, (n,)
            each.
        keen: the same columns of a log in which the keen users got the computed lists.
        demand: (24,) mean number of requests by hour of the day.
        until: slot until which an arm serves.
    """

    service: Service
    columns: tuple[Array, Array, Array, Array, Array]
    keen: tuple[Array, Array, Array, Array, Array]
    demand: Array
    until: float


def environment(place: str, seed: int, users: int, days: int) -> WorldEnv:
    """Return the environment of a place (world or twin)."""
    scenario = load_scenario("peak-load", users=users, items=400, days=days, candidates=20, joining=0.0)
    mechanisms = scenario.mechanisms
    changed = {**mechanisms, "load": mechanisms["load"].model_copy(update={"capacity": CAPACITY})}
    world = World(scenario.model_copy(update={"mechanisms": changed}), seed)
    return WorldEnv(world.twin("load") if place == TWIN else world)


def data(place: str, seed: int, quick: bool) -> Logged:
    """Return the service after its log, together with the log in which the keen users got the computed lists."""
    users, length, more = (80, 1, 1) if quick else (4800, LOGGED_DAYS, PLAYED_DAYS)
    logs = []
    for keen in (True, False):
        env = environment(place, seed, users, length + more)
        service = Service(env, env.reset(seed=seed)[0])
        logs.append(logged(service, length / service.env.world.slot_days, keen, np.random.default_rng([seed, 9])))
    (keen_log, _), (log, hours) = logs
    demand = np.bincount(hours, minlength=24) / length
    return Logged(service, log, keen_log, demand, (length + more) / service.env.world.slot_days)


def logged(
    service: Service, until: float, keen: bool, random: np.random.Generator
) -> tuple[tuple[Array, Array, Array, Array, Array], Array]:
    """Serve until a slot with random or keen-first decisions. Return the columns of the log, and the hour of the day of
    each request."""
    keenness = service.env.world.traits["keenness"]
    rows: list[tuple[Array, ...]] = []
    while service.env.world.slot < until:
        user = np.flatnonzero(service.seen[:, 0] > 0)
        states, level = service.states(user), (service.seen[user, LOAD] > 1).astype(np.int64)
        chance = np.where(keenness[user] > 0, 0.95, 0.05) if keen else np.full(len(user), 0.5)
        hour = np.full(len(user), service.hour)
        fresh, clicks = service.step(user, random.random(len(user)) < chance)
        rows.append((states, fresh.astype(np.int64), level, clicks, user, np.full(len(user), len(rows)), hour))
    states, action, level, clicks, user, turn, hours = (np.concatenate(part) for part in zip(*rows))
    return (states, action, followers(user, turn), level, clicks), hours


def played(given: Logged, first: First, parameters: int) -> Outcome:
    """Serve the users of the log by these priorities in the days after it, and return the outcome.

    Requests arrive in groups, and all groups of an hour share its capacity. A list is therefore computed if the
    priority reaches a threshold. The threshold is chosen so that the share of the latest requests that reach it equals
    the share of the hour's remaining requests that can still get a computed list.
    """
    service = copy.deepcopy(given.service)
    random = np.random.default_rng([service.env.world.seed, 10])
    latest: deque[float] = deque(maxlen=LATEST)
    clicks = expected = requests = computed = 0.0
    while service.env.world.slot < given.until:
        user = np.flatnonzero(service.seen[:, 0] > 0)
        worth = first(service, user, service.states(user))
        latest.extend(worth)
        room = max(service.load.capacity - service.load.computed, 0)
        left = max(given.demand[service.hour] - service.load.asked + len(user), len(user), 1)
        few = max(left - left**0.5, len(user), 1)  # a low estimate of the demand, so that no capacity stays unused
        bar = np.quantile(latest, 1 - min(room / few, 1.0), method="lower") if len(user) else 0.0
        order = np.lexsort((random.random(len(user)), -worth))
        wanted = np.zeros(len(user), dtype=bool)
        wanted[order[:room]] = True
        wanted &= (worth >= bar) & (worth > -np.inf)
        values = service.values(user)
        fresh, gained = service.step(user, wanted)
        clicks, expected = clicks + gained.sum(), expected + np.where(wanted, values[:, 0], values[:, 1]).sum()
        requests, computed = requests + len(user), computed + fresh.sum()
    users = len(service.seen)
    share = computed / max(requests, 1.0)
    metrics = {"expected clicks per user": expected / users, "clicks per user": clicks / users, "computed share": share}
    return Outcome(metrics["expected clicks per user"], metrics, parameters)


def learnt(form: Form, keen: bool = False, ahead: bool = True) -> Callable[[Logged, Mapping[str, Any], int], Outcome]:
    """Return the function that fits an actor with critics of one form to the random log or to the log of the keen, and
    serves with it."""

    def run(given: Logged, configuration: Mapping[str, Any], seed: int) -> Outcome:
        states, action, after, level, clicks = given.keen if keen else given.columns
        going = after != NO_ROW
        chain = fit_chain(level[going], level[after[going]], 2)
        settings = CacheActorSettings(
            form=form, share=CAPACITY, discount=configuration.get("discount", 0.8) if ahead else 0.0,
            ridge=configuration.get("ridge", 1e-3),
        )  # fmt: skip
        actor = CacheActor(settings).fit(states, action, after, level, clicks, chain)
        return played(given, lambda service, user, told: actor.lead(told), actor.critics.size)

    return run


def fixed(
    which: Literal["arrival", "lot", "always", "oldest", "truth"],
) -> Callable[[Logged, Mapping[str, Any], int], Outcome]:
    """Return the function that serves with priorities that are not learnt."""

    def first(service: Service, user: Array, told: Array) -> Array:
        if which == "arrival":
            return np.zeros(len(user))
        if which == "lot":
            seen = service.env.world.public.seen
            return np.random.default_rng([service.env.world.seed, int(seen.sum())]).random(len(user))
        if which == "always":
            return np.full(len(user), -np.inf)
        if which == "oldest":
            return np.asarray(np.where(told[:, 1] > 0, told[:, 2], np.inf))
        values = service.values(user)
        return np.asarray(values[:, 0] - values[:, 1])

    return lambda given, configuration, seed: played(given, first, 0)


TRIED: tuple[dict[str, Any], ...] = ({"discount": 0.8}, {"discount": 0.5})
RIDGES: tuple[dict[str, Any], ...] = ({"ridge": 1e-3}, {"ridge": 1e-2})
FIXED: tuple[dict[str, Any], ...] = ({}, {})
COMPONENT = Component(
    claim="an actor with cache-aware critics chooses better than chance which requests get computed lists",
    metric="expected clicks per user",
    arms={
        "CARL": Arm(learnt("eigen"), TRIED),
        "by lot": Arm(fixed("lot"), FIXED),
        "in order of arrival": Arm(fixed("arrival"), FIXED),
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
