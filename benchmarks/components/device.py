"""Does it pay to replace videos that would stall on a weak network by videos on the device (GRF)?

In the world ``weak-network``, stalls shorten the watch time and drive users away; in the twin, they cost nothing. Each
user's device has a pool of ten videos: those that the server ranked directly below the shown list when the network was
last good. A video of the list that is in the pool is played from there. A *gate* decides which videos of the list are
replaced by videos of the pool. It is based on trees, fitted to a log of random lists, that predict stalls and the value
of a view.

Arms, equal in lists, pools and fitted trees: ``gate``; ``none``, the deciding baseline, which replaces nothing;
``random gate``, which replaces a random share; ``always``, which replaces every video that it can. Metric: the
scenario's reward per user, from clicks and watch time, on the test days in a closed loop. The test days follow those on
which the configuration is chosen. :mod:`benchmarks.components.comparison` explains the columns, the checks, and what is
held equal for all arms. Numbers of parameters are not compared.

The exact part checks that the exported file of the gate is at most 1 MiB.

    python -m benchmarks.components --only device [--quick] [--json benchmarks/results/device.json]
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.components.comparison import TWIN, Arm, Component, Outcome
from benchmarks.components.world_slates import public_features, ridge
from benchmarks.harness import Result
from taiji.core.component import NO_ITEM, Requests, Slate
from taiji.models.rerank.device import CACHED, HOURS, PREFETCHED, DeviceGate, DeviceGateSettings, PlayedVideos
from taiji.models.rerank.device_graph import LARGEST, export_device_gate
from taiji.world import World
from taiji.world.mechanisms.content import Content
from taiji.world.mechanisms.network import Network
from taiji.world.observation import Choice, Observation
from taiji.world.world_time import to_days

Array = NDArray[Any]
POOL = 10
Data = tuple[World, Callable[[Array], Array], DeviceGate, tuple[float, float, float]]


def data(place: str, seed: int, quick: bool) -> Data:
    """Return a world after some days of random lists, the server's score, the gate with fitted trees, and the days on
    which warm-up, validation and test end."""
    world = World("weak-network", seed, users=150 if quick else 600, items=400, days=14)
    if place == TWIN:
        world = world.twin("network")
    ends = (3.0, 4.0, 6.0) if quick else (4.0, 6.0, 10.0)
    random, parts = np.random.default_rng(seed), []
    while (world.slot + 1) * world.slot_days < ends[0]:
        asked = world.observation
        order = np.argsort(np.where(asked.candidates.mask, random.random(asked.candidates.items.shape), 2.0), axis=1)
        items = asked.candidates.take(order[:, : world.scenario.slate]).items
        features = public_features(world, asked, np.maximum(items, 0))
        found = world.step(Choice(items))
        full = (found.items >= 0).all(axis=1)
        viewed = found.outcome["view"] == 1
        worth = found.outcome["click"] + world.scenario.reward["watch"] * found.outcome["watch"]
        parts.append(
            {
                "user": asked.requests.user, "time": asked.requests.time, "network": asked.requests.columns["network"],
                "items": items, "features": features, "worth": np.where(viewed, worth, np.nan),
                "stalled": np.where(viewed, found.outcome["stall"], np.nan),
            }
        )  # fmt: skip
        parts[-1] = {name: values[full] for name, values in parts[-1].items()}
    rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    half = len(rows["user"]) // 2
    x, y = rows["features"][:half], rows["worth"][:half]
    server = ridge(x[np.isfinite(y)], y[np.isfinite(y)])
    requests = Requests(rows["user"], rows["time"], {"network": rows["network"]}).take(slice(half, None))
    slate = Slate(rows["items"][half:], server(rows["features"][half:]))
    numbers = {"bitrate": world.find(Network).bitrate, "duration": world.find(Content).duration}
    settings = DeviceGateSettings(numbers=("bitrate", "duration"), explore=0.0)
    gate = DeviceGate(settings, numbers).fit(
        PlayedVideos(requests, slate, rows["stalled"][half:], rows["worth"][half:]), seed=seed
    )
    return world, server, gate, ends


class Random(DeviceGate):
    """Gate that replaces a random share of the videos."""

    share = 1.0

    def need(self, stall: Array, value: Array) -> Array:
        """Return a very large gain for the videos that are drawn, and −∞ for the others."""
        drawn = np.random.default_rng(len(stall)).random(stall.shape)
        return np.where(drawn < self.share, 1e6, -np.inf)


def closed_loop(world: World, server: Callable[[Array], Array], gate: DeviceGate, until: float) -> dict[str, float]:
    """Serve until a day. Return totals of reward, watch seconds, views, stalls, positions, and positions played from
    the device."""
    length, users = world.scenario.slate, world.scenario.users
    pool, loaded = np.full((users, POOL), NO_ITEM), np.zeros(users)
    total = dict.fromkeys(("reward", "watch", "views", "stalls", "places", "from the device"), 0.0)
    while (world.slot + 1) * world.slot_days < until:
        asked = world.observation
        user, now = asked.requests.user, to_days(asked.requests.time)
        held = np.where((pool[user] >= 0) & asked.available[np.maximum(pool[user], 0)], pool[user], NO_ITEM)
        slate = _with_pool(world, asked, server, held)
        hours = np.broadcast_to(24 * (now - loaded[user])[:, None], held.shape)
        columns = {"network": asked.requests.columns["network"], CACHED: held, HOURS: np.maximum(hours, 0.0)}
        shown = gate.rerank(Requests(user, asked.requests.time, columns), slate, length)
        found = world.step(Choice(shown.items, display={"prefetched": shown.columns[PREFETCHED]}))
        total["reward"] += float(world.reward(found.outcome).sum())
        for name, of in (("watch", "watch"), ("views", "view"), ("stalls", "stall")):
            total[name] += float(found.outcome[of].sum())
        total["places"] += float((shown.items >= 0).sum())
        total["from the device"] += float(shown.columns[PREFETCHED].sum())
        held = np.where((held[:, :, None] == shown.items[:, None, :]).any(axis=2), NO_ITEM, held)
        good = columns["network"] == "good"
        assert slate.scores is not None
        spare = slate.mask & ~(slate.items[:, :, None] == shown.items[:, None, :]).any(axis=2)
        best = np.argsort(np.where(spare, -slate.scores, np.inf), axis=1, kind="stable")[:, :POOL]
        pool[user] = np.where(
            good[:, None], slate.take(best).where(np.take_along_axis(spare, best, axis=1)).items, held
        )
        loaded[user] = np.where(good, now, loaded[user])
    return total


def _with_pool(world: World, asked: Observation, server: Callable[[Array], Array], held: Array) -> Slate:
    """Return the candidates and the videos on the device, without duplicates, with the server's scores."""
    own = asked.candidates.items
    new = np.where((held[:, :, None] == own[:, None, :]).any(axis=2), NO_ITEM, held)
    items = np.concatenate([own, new], axis=1)
    scores = server(public_features(world, asked, np.maximum(items, 0)))
    return Slate(items, np.where(items >= 0, scores, 0.0)).kept(items >= 0)


def arm(
    make: Callable[[DeviceGate, Mapping[str, Any]], DeviceGate],
) -> Callable[[Data, Mapping[str, Any], int], Outcome]:
    """Return the function that runs an arm in a copy of the world: validation days, then test days."""

    def run(given: Data, configuration: Mapping[str, Any], seed: int) -> Outcome:
        world, server, gate, (_, validated, end) = given
        world = deepcopy(world)
        used = make(gate, configuration)
        before = closed_loop(world, server, used, validated)
        found = closed_loop(world, server, used, end)
        users = world.scenario.users
        return Outcome(
            before["reward"],
            {
                "reward per user": found["reward"] / users,
                "watch seconds per user": found["watch"] / users,
                "stalls per view": found["stalls"] / max(found["views"], 1.0),
                "share from the device": found["from the device"] / max(found["places"], 1.0),
            },
        )

    return run


def copied(kind: type[DeviceGate], gate: DeviceGate, **settings: Any) -> DeviceGate:
    """Return a gate of another class or with other settings, with the same fitted trees."""
    made = kind(gate.settings.model_copy(update=settings))
    made.facts = gate.facts
    made.restore(gate.weights())
    return made


def component(gate: DeviceGate, configuration: Mapping[str, Any]) -> DeviceGate:
    """Return the component with the cost of a stall from the configuration."""
    return copied(DeviceGate, gate, **configuration)


def blind(gate: DeviceGate, configuration: Mapping[str, Any]) -> DeviceGate:
    """Return a gate that replaces a random share of the videos."""
    made = copied(Random, gate)
    assert isinstance(made, Random)
    made.share = configuration["share"]
    return made


def size(result: Result, quick: bool) -> None:
    """Check the size of the exported file of the gate."""
    _, _, gate, _ = data("world", 0, True)
    with tempfile.TemporaryDirectory() as folder:
        count = export_device_gate(gate, Path(folder) / "gate.onnx")
    result.at_most("device: size of the exported file, in MiB", count / LARGEST, 1.0)


COMPONENT = Component(
    claim="replacing videos that would stall gains more than it loses",
    metric="reward per user",
    arms={
        "gate": Arm(arm(component), ({"stall_cost": 1.0}, {"stall_cost": 3.0})),
        "none": Arm(arm(blind), ({"share": 0.0}, {"share": 0.0})),
        "random gate": Arm(arm(blind), ({"share": 0.1}, {"share": 0.3})),
        "always": Arm(arm(blind), ({"share": 1.0}, {"share": 1.0})),
    },
    data=data,
    same_parameters=False,
    exact=size,
)
