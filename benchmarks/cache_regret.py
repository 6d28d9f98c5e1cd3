"""Reward that a service loses by showing users their earlier lists again under overload.

A *kept list* is a list that the service computed for the user earlier. In five simulated worlds of the scenario
``peak-load`` (400 users, 600 items, five days and lists of six), users send requests to a simulated server that can
compute a third of the requested lists on average. The reward is the expected number of clicks. Kept lists and cache
policies are the service's own code. A user whose request is rejected sees nothing. Every policy serves the same users
in the same world, and the true expected reward of every list is known. Policies:

- ``never``: kept lists are not shown; a request is rejected if there is no capacity;
- ``overloaded``: the kept list is shown if the request would be rejected otherwise;
- ``threshold``: the kept list is shown if the queue is at least a quarter full, or if there is no capacity;
- ``critics``: learnt critics choose the requests that lose least if a kept list is shown; they are fitted to the clicks
  in the log of another world;
- ``critics of shuffled clicks``: negative control, whose critics are fitted to permuted clicks;
- ``overloaded, no spare``: as ``overloaded``, but no spare items replace the clicked items that are left out;
- ``overloaded, twin``: as ``overloaded``, in a world in which tastes make no difference, so that only shorter lists can
  lose reward.

In this world, seeing a list twice costs nothing by itself. Kept lists lose reward because items that have been clicked
since are left out, and because tastes drift.

Columns, one row per policy and world (``seed``): ``answered, share``, the share of requests that were not rejected;
``answered, share of users with a list``, the same without the rejected requests of users who had no recent enough list;
``from the cache, share``, the share of requests answered with a kept list; ``age of a kept list, median h``. ``kept
list over fresh, reward`` is the reward of the kept lists shown, divided by that of the lists that would have been
computed for the same requests; two further columns are for kept lists younger than ten minutes and older than six
hours. ``places of a kept list over fresh`` is the number of items in a kept list, divided by that in the list that
would have been computed (mean over the kept lists shown). ``reward, share of all computed`` is the reward of everything
shown, divided by the reward of computing every list. A row ``gain`` has the mean difference of this share between two
policies over the worlds; ``± 95 %`` is half the width of its interval. `benchmarks.overload` includes these
measurements.

    python -m benchmarks.cache_regret [--quick] [--json benchmarks/results/cache_regret.json]
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import Result, run
from taiji.core.component import NO_ITEM
from taiji.models.policy.cache_critics import CacheCritics, CacheCriticsSettings, fit_chain
from taiji.models.policy.session_returns import NO_ROW, followers
from taiji.serving.cache_critics_policy import request_features
from taiji.serving.cache_policies import CachePolicy, Situation, make_policy
from taiji.serving.kept_lists import SHARE, KeptList, KeptLists, Missing
from taiji.serving.types import Event, RecommendRequest, RecommendResult, UserHistory
from taiji.world import World
from taiji.world.observation import Choice
from taiji.world.policies import ContentPolicy
from taiji.world.scenario import Scenario, load_scenario

Array = NDArray[Any]
TIMES, ROOM = 3.0, 50
"""Average number of requested lists relative to the capacity, and largest number of lists in the queue."""
SEEDS, STUDENT = 5, 2.776
"""Number of worlds, and Student's 97.5 % quantile for this number."""
KEPT, HISTORY = 86400.0, 100
"""Seconds for which a list is kept, and number of a user's latest events in the history of a request."""


@dataclass
class Server:
    """Simulated server with a queue of at most :data:`ROOM` lists to compute.

    Attributes:
        each: microseconds to compute a list.
        work: microseconds of work in the queue.
        at: time of the latest request, in microseconds.
    """

    each: float
    work: float = 0.0
    at: int = 0

    def arrive(self, time: int) -> None:
        """Remove the work that is done by the time of a request."""
        self.work = max(0.0, self.work - max(0, time - self.at))
        self.at = max(self.at, time)

    @property
    def load(self) -> float:
        """Number of lists in the queue, as a share of :data:`ROOM`."""
        return self.work / self.each / ROOM

    @property
    def room(self) -> bool:
        """True if the queue accepts one more list."""
        return self.work <= self.each * (ROOM - 1)


@dataclass
class Served:
    """Requests of one run of the world, as lists with one value per request, in the order of the world's steps.

    Attributes:
        fresh: expected reward of the list that would have been computed.
        shown: expected reward of what was shown; 0 for a rejected request.
        filled: number of items shown, divided by the number in the list that would have been computed.
        origin: 0 for a computed list, 1 for a kept list, 2 for a rejected request.
        age: age of the kept list in seconds; NaN for other requests.
        had: False if the request was rejected and its user had no recent enough list.
        features, user, time, clicks, level: data for the critics, only of requests that were not rejected and whose
            user had a kept list: features of the request, user, time, clicks on the shown list, and 1 if that was the
            kept list.
    """

    fresh: list[float] = field(default_factory=list)
    shown: list[float] = field(default_factory=list)
    filled: list[float] = field(default_factory=list)
    origin: list[int] = field(default_factory=list)
    age: list[float] = field(default_factory=list)
    had: list[bool] = field(default_factory=list)
    features: list[Array] = field(default_factory=list)
    user: list[int] = field(default_factory=list)
    time: list[int] = field(default_factory=list)
    clicks: list[float] = field(default_factory=list)
    level: list[int] = field(default_factory=list)


def scenario(users: int, days: int) -> Scenario:
    """Return the scenario ``peak-load`` as a task of showing lists. It lacks the mechanism ``load``, because the
    simulated server takes its place."""
    found = load_scenario("peak-load", users=users, items=600, days=days, candidates=60, joining=0.1, slot_hours=0.1)
    mechanisms = {name: settings for name, settings in found.mechanisms.items() if name != "load"}
    return Scenario.model_validate({**found.model_dump(), "task": "slate", "mechanisms": mechanisms})


def listed(items: Array) -> RecommendResult:
    """Return items in the form in which the service returns a list."""
    names = tuple(str(item) for item in items if item != NO_ITEM)
    return RecommendResult(names, (0.0,) * len(names), ("content",) * len(names))


def serve(world: World, policy: CachePolicy, *, spare: bool = True) -> Served:
    """Serve all requests of a world under a policy. If ``spare`` is False, kept lists have no spare items to replace
    the items that were clicked."""
    s, out, chooser = world.scenario, Served(), ContentPolicy(world)
    server = Server(86_400e6 * TIMES / (s.users * s.visits * s.requests))
    kept, truth = KeptLists(s.users, KEPT), world.truth
    events: list[list[Event]] = [[] for _ in range(s.users)]
    seen = np.zeros(s.users, np.int64)
    observation = world.observation
    start = int(observation.requests.time.min())
    while int(observation.requests.time.min()) < start + s.days * 86_400_000_000:
        users, times = observation.requests.user, observation.requests.time
        longer = chooser.choose(observation, 2 * s.slate).items
        fresh = longer[:, : s.slate]
        shown, origin = fresh.copy(), np.zeros(len(users), np.int64)
        age = np.full(len(users), np.nan)
        noted, had = [], np.ones(len(users), bool)
        for row in np.argsort(times, kind="stable").tolist():
            user, now = int(users[row]), int(times[row])
            server.arrive(now)
            history = UserHistory(str(user), now, tuple(events[user][-HISTORY:]), int(seen[user]))
            request = RecommendRequest(history, s.slate)
            found = kept.find("r", request, now, SHARE if server.room else 0.0)
            if not isinstance(found, Missing):
                made, again = found
                situation = Situation(
                    server.room, server.load, now, (now - made.made_at) / 1e6, history.seen, history.seen - made.seen
                )
                noted.append((row, request_features(situation)))
                if policy.from_cache(situation):
                    items = [int(item) for item in again.items]
                    shown[row] = NO_ITEM
                    shown[row, : len(items)] = items
                    origin[row], age[row] = 1, situation.age_s
                    continue
            if not server.room:
                shown[row], origin[row] = NO_ITEM, 2
                had[row] = found not in (Missing.NONE, Missing.OLD)
                continue
            server.work += server.each
            result = replace(listed(fresh[row]), spare=listed(longer[row, s.slate :]) if spare else None)
            kept.keep(str(user), KeptList.of("r", request, result, now))
        values = truth.list_values(observation, np.stack([fresh, shown], axis=1))
        exposure = world.step(Choice(shown))
        clicked = exposure.shown & (exposure.outcome["click"] == 1)
        for row, place in np.argwhere(clicked).tolist():
            user, item = int(users[row]), int(exposure.items[row, place])
            events[user].append(Event(f"{user}-{seen[user]}", str(user), str(item), int(times[row])))
            seen[user] += 1
        out.fresh += values[:, 0].tolist()
        out.shown += values[:, 1].tolist()
        out.filled += ((shown != NO_ITEM).sum(axis=1) / (fresh != NO_ITEM).sum(axis=1)).tolist()
        out.origin += origin.tolist()
        out.age += age.tolist()
        out.had += had.tolist()
        for row, features in noted:
            if origin[row] != 2:
                out.features.append(features)
                out.user.append(int(users[row]))
                out.time.append(int(times[row]))
                out.clicks.append(float(clicked[row].sum()))
                out.level.append(int(origin[row] == 1))
        observation = world.observation
    return out


def fitted(log: Served, folder: Path, clicks: Array) -> dict[str, object]:
    """Return settings of the policy ``critics``. The critics are fitted to a log with the given clicks (n,), and stored
    in the folder."""
    user, time, level = np.array(log.user), np.array(log.time), np.array(log.level)
    after = followers(user, time)
    going = after != NO_ROW
    settings = CacheCriticsSettings(levels=2, discount=0.8)
    CacheCritics(settings).fit(np.stack(log.features), after, level, clicks).save(folder)
    return {"critics": str(folder), "chain": fit_chain(level[going], level[after[going]], 2).tolist()}


def row_of(name: str, seed: int, served: Served) -> dict[str, Any]:
    """Return the row of one policy in one world."""
    fresh, shown, origin = np.array(served.fresh), np.array(served.shown), np.array(served.origin)
    age = np.nan_to_num(np.array(served.age)) / 3600
    cached, known = origin == 1, np.array(served.had)
    return {
        "what": f"regret, {name}",
        "seed": seed,
        "requests": len(origin),
        "answered, share": float((origin != 2).mean()),
        "answered, share of users with a list": float((origin != 2)[known].mean()),
        "from the cache, share": float(cached.mean()),
        "age of a kept list, median h": float(np.median(age[cached])) if cached.any() else None,
        "kept list over fresh, reward": float(shown[cached].sum() / fresh[cached].sum()) if cached.any() else None,
        **{
            f"… {text}": float(shown[rows].sum() / fresh[rows].sum())
            for text, rows in (("below 10 min", cached & (age < 1 / 6)), ("over 6 h", cached & (age > 6)))
            if rows.any()
        },
        "places of a kept list over fresh": float(np.array(served.filled)[cached].mean()) if cached.any() else None,
        "reward, share of all computed": float(shown.sum() / fresh.sum()),
    }


def regret(result: Result, quick: bool) -> None:
    """Add a row per policy and world, the gains, and the checks. A quick run has one small world and no gains."""
    users, days = (150, 3) if quick else (400, 5)
    rows: list[dict[str, Any]] = []
    for seed in range(1 if quick else SEEDS):
        world = World(scenario(users, days), seed)
        with tempfile.TemporaryDirectory() as folder:
            log = serve(World(scenario(users, days), seed + 1000), make_policy("threshold", {"age_s": KEPT}))
            clicks = np.array(log.clicks)
            shuffled = np.random.default_rng(seed).permutation(clicks)
            for name, policy, settings in (
                ("never", "never", {}),
                ("overloaded", "overloaded", {}),
                ("threshold", "threshold", {"load": 0.25, "age_s": KEPT}),
                ("critics", "critics", fitted(log, Path(folder) / "critics", clicks)),
                ("critics of shuffled clicks", "critics", fitted(log, Path(folder) / "shuffled", shuffled)),
            ):
                rows.append(row_of(name, seed, serve(World(world.scenario, seed), make_policy(policy, settings))))
        whole = make_policy("overloaded", {})
        rows.append(row_of("overloaded, no spare", seed, serve(World(world.scenario, seed), whole, spare=False)))
        rows.append(row_of("overloaded, twin", seed, serve(world.twin("taste"), whole)))
        result.rows += rows[-7:]
        result.so_far()

    def mean(name: str, figure: str) -> float:
        return float(np.mean([row[figure] for row in rows if row["what"] == f"regret, {name}"]))

    reward = "reward, share of all computed"
    pairs = (("threshold", "overloaded"), ("critics", "threshold"), ("critics", "critics of shuffled clicks"),
             ("overloaded", "overloaded, no spare"))  # fmt: skip
    for name, other in () if quick else pairs:
        gains = [
            a[reward] - b[reward]
            for a, b in zip(*([row for row in rows if row["what"] == f"regret, {n}"] for n in (name, other)))
        ]
        half = STUDENT * float(np.std(gains, ddof=1)) / np.sqrt(len(gains))
        result.rows.append({"what": f"gain, {name} over {other}", reward: float(np.mean(gains)), "± 95 %": half})
    result.at_least("answered of all requests, share, threshold", mean("threshold", "answered, share"), 1.0)
    gain = mean("overloaded", reward) - mean("never", reward)
    result.at_least("reward that is gained by showing kept lists, share of all computed", gain, 0.3)
    result.at_most(
        "twin: what kept lists lose", abs(1 - mean("overloaded, twin", "kept list over fresh, reward")), 0.05
    )


def measure(quick: bool) -> Result:
    """Run :func:`regret`, which is also a part of `benchmarks.overload`."""
    result = Result()
    regret(result, quick)
    return result


if __name__ == "__main__":
    run(measure)
