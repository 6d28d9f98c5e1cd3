"""Are the simulated worlds fast enough to learn from, are their truths correct, and does a policy that reads titles
lose its gain in the twin with uninformative titles?

Rows by ``part``:

- ``speed``: user-item responses per second of CPU time (expectations and draws of every mechanism), by shipped
  scenario.
- ``log``: ``rows`` of a log, and CPU seconds (``seconds``), elapsed seconds (``wall``) and peak memory (``gigabytes``)
  to make it, for two scenarios.
- ``truth``: largest distance between the mean of simulated responses and its expectation, in standard errors, over
  ``n`` comparisons, by scenario.
- ``twins``: clicks of a policy divided by those of a random choice, minus 1, with Student's 95 % interval over ``n``
  worlds (six; two in a quick run), in the world `short-video` and in its twin with uninformative titles. ``content``
  reads titles, ``popular`` follows click rates, ``oracle`` knows the truth.

Checks: at least 200,000 responses per second; at most 30 CPU seconds per million impressions of a log, and at most 2 GB
of memory; a root mean square distance of at most 1.3 standard errors; a gain of ``content`` of at least 5 %, of which
it loses at least half in the twin (where it can still recognise an item by its title, and shows clicked items again); a
gain of ``oracle`` at least 5 percentage points larger than that of ``popular``. Limits are on CPU time, so that other
work on the machine does not matter.

    python -m benchmarks.world [--quick] [--json benchmarks/results/world.json]
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

import numpy as np

from benchmarks.harness import Result, run
from taiji.core.progress import track
from taiji.world import World, scenarios
from taiji.world.outcomes import user_outcomes

RESPONSES, SECONDS, GIGABYTES = 200_000, 30.0, 2.0
T = {2: 12.706, 6: 2.571}
"""Student's t of a 95 % interval, by number of seeds."""
LOG = """
import json, resource, time
from taiji.world import World
start, wall = time.process_time(), time.perf_counter()
events = World("{name}", users={users}, days={days}).log().events
print(json.dumps({{"rows": len(events), "seconds": time.process_time() - start, "wall": time.perf_counter() - wall,
    "gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}}))
"""


def measure(quick: bool) -> Result:
    """Run all parts."""
    result = Result()
    speed(result, lists=2_000 if quick else 10_000, repeats=2 if quick else 5)
    log(result, **({"users": 300, "days": 4} if quick else {"users": 2800, "days": 20}))
    truth(result, draws=2_000 if quick else 20_000)
    twins(result, seeds=2 if quick else 6, users=200 if quick else 400, days=3 if quick else 4)
    return result


def speed(result: Result, lists: int, repeats: int) -> None:
    """Measure the responses per second of each scenario, for ``lists`` lists at once."""
    slowest = np.inf
    for name in track(scenarios(), "speed", unit="worlds"):
        world = World(name)
        items = np.flatnonzero(world.available(0))[: world.scenario.slate]
        users = np.arange(lists) % world.scenario.users
        shown = np.tile(items, (lists, 1))
        world.truth.simulate(users[:10], shown[:10])
        start = time.process_time()
        for number in range(repeats):
            world.truth.simulate(users, shown, first=number * lists)
        rate = repeats * shown.size / (time.process_time() - start)
        result.rows.append({"part": "speed", "what": f"{name}: responses per second", "value": rate})
        slowest = min(slowest, rate)
    result.at_least("responses per second of one core, slowest world", slowest, RESPONSES)


def log(result: Result, users: int, days: int) -> None:
    """Measure the making of logs, each in a process of its own. The check scales CPU time to a million impressions."""
    for name in ("short-video", "everything"):
        code = LOG.format(name=name, users=users, days=days)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        found = json.loads(done.stdout)
        for what, value in found.items():
            result.rows.append({"part": "log", "what": f"{name}, {users} users, {days} days: {what}", "value": value})
        seconds = found["seconds"] * 1e6 / found["rows"]
        result.at_most(f"{name}: CPU seconds of a log of a million impressions", seconds, SECONDS)
        result.at_most(f"{name}: GB of the process", found["gigabytes"], GIGABYTES)


def truth(result: Result, draws: int) -> None:
    """Compare the means of simulated responses with the truth. If the truth is correct, the largest of a few thousand
    distances is about 4 standard errors."""
    for name in track(scenarios(), "truth", unit="worlds"):
        world = World(name)
        users, items = np.arange(20), np.flatnonzero(world.available(0))
        lists = np.stack([np.roll(items, -4 * k)[: min(world.scenario.slate, 4)] for k in range(20)])
        expected = world.truth.expect(users, lists)
        drawn = world.truth.simulate(np.repeat(users, draws), np.repeat(lists, draws, axis=0)).outcome
        far: list[Any] = []
        for key in expected.keys() & drawn.keys():
            happened = drawn[key].reshape(20, draws, -1)
            floor = np.sqrt(np.clip(expected[key], 1 / draws, 0.05))  # lower bound of the deviation of rare events
            error = np.maximum(happened.std(axis=1), floor) / np.sqrt(draws)
            far.extend((np.abs(happened.mean(axis=1) - expected[key]) / error).ravel())
        row = {
            "part": "truth",
            "what": f"{name}: largest distance in standard errors",
            "value": max(far),
            "n": len(far),
        }
        result.rows.append(row)
        result.at_most(
            f"{name}: root mean square distance of simulated means from the truth, standard errors",
            float(np.sqrt(np.mean(np.square(far)))),
            1.3,
        )


def twins(result: Result, seeds: int, users: int, days: int) -> None:
    """Compare the gains of policies over a random choice in the world and in the twin with uninformative titles, paired
    by world."""
    gains: dict[tuple[str, str], list[float]] = {}
    for seed in track(range(seeds), "twins", unit="seeds"):
        world = World("short-video", seed, users=users, candidates=50)
        for place, where in (("world", world), ("twin without text", world.twin("content.text"))):
            earned = {
                name: user_outcomes(where, name, days)["click"].sum()
                for name in ("random", "content", "popular", "oracle")
            }
            for name in ("content", "popular", "oracle"):
                gains.setdefault((place, name), []).append(earned[name] / earned["random"] - 1)
    for (place, name), values in gains.items():
        mean, error = float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(seeds))
        result.rows.append(
            {
                "part": "twins",
                "what": f"{place}: clicks of {name} over random",
                "value": mean,
                "low": mean - T[seeds] * error,
                "high": mean + T[seeds] * error,
                "n": seeds,
            }
        )
    told, untold = (np.array(gains[place, "content"]) for place in ("world", "twin without text"))
    result.at_least("gain of the policy that reads titles", float(told.mean()), 0.05)
    result.at_least(
        "share of this gain that the policy loses in the twin", float((told - untold).mean() / told.mean()), 0.5
    )
    result.at_least(
        "gain of the oracle over that of popularity",
        float(np.mean(gains["world", "oracle"]) - np.mean(gains["world", "popular"])),
        0.05,
    )


if __name__ == "__main__":
    run(measure)
