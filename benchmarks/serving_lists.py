"""How fast does `POST /v1/recommend` return lists out of 100,000 items with real models? Latency, throughput, CPU time.

`taiji recommend` trains popularity, co-occurrence, two towers and the default ranker on a synthetic log. `taiji serve`
then returns lists of 50 items out of about 500 ranked candidates, with two HTTP processes and without a cache. The load
generator has a process of its own on the same cores, so all work on the machine affects the measurements.

Rows: an open loop of 100 requests per second, in which latency counts from the time when a request was due, and a
closed loop of 8 connections, in which each sends its next request as soon as the last one is answered. ``requests/s``
counts responses other than 503; ``p50 ms`` to ``p99 ms`` are percentiles of the latency; ``CPU ms a request`` is CPU
time of the service; ``others' share of the CPU`` is the share of the machine's busy time that other processes took,
including the load generator; ``refused`` counts responses with status 503, ``wrong`` all other failures and broken
connections. The check is that every response is 2xx. (In the stored file, ``requests/s`` and ``CPU ms a request`` have
their earlier names ``lists/s`` and ``CPU ms a list``.)

The full run trains on 100,000 items, and then measures each loop three times for 20 seconds. ``TAIJI_BENCHMARK_FOLDER``
keeps the log and the trained run for the next time. The quick run has 2,000 items and one second per loop.

    python -m benchmarks.serving_lists [--quick] [--json benchmarks/results/serving_lists.json]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import psutil
import yaml
from tests.serving.rig import free_port

from benchmarks.harness import Result, run
from taiji.serving.traffic import Kind

RATE = 100.0
LENGTH, RETRIEVED, CANDIDATES = 50, 200, 500
LOADER = """
import json, sys
from dataclasses import asdict
from taiji.serving import load
asked = json.loads(sys.stdin.read())
print(json.dumps(asdict(load(**asked))))
"""


def write_log(folder: Path, users: int, items: int, rows: int) -> None:
    """Write a log with groups of similar items. Each user prefers three groups, and popularity follows a power law."""
    random = np.random.default_rng(0)
    folder.mkdir()
    group = random.integers(200, size=items)
    pl.DataFrame(
        {
            "item_id": [f"item-{number}" for number in range(items)],
            "title": [f"Thing {number} of kind {kind}" for number, kind in enumerate(group.tolist())],
            "kind": [f"kind {kind}" for kind in group.tolist()],
        }
    ).write_parquet(folder / "items.parquet")
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(201))
    tastes = random.integers(200, size=(users, 3))
    user = random.integers(users, size=rows)
    kind = np.where(
        random.random(rows) < 0.8, tastes[user, random.integers(3, size=rows)], random.integers(200, size=rows)
    )
    sizes = starts[kind + 1] - starts[kind]
    item = order[starts[kind] + (sizes * random.random(rows) ** 3).astype(int)]
    pl.DataFrame(
        {
            "user_id": [f"user-{number}" for number in user.tolist()],
            "item_id": [f"item-{number}" for number in item.tolist()],
            "time": 1_700_000_000 + np.sort(random.integers(90 * 86_400, size=rows)),
            "bought": (random.random(rows) < 0.1).astype(int),
        }
    ).write_parquet(folder / "events.parquet")
    mapping = {
        "name": "large",
        "items": {"file": "items.parquet", "item_id": "item_id", "title": "title", "category_l1": "kind"},
        "events": {
            "file": "events.parquet",
            "user_id": "user_id",
            "item_id": "item_id",
            "timestamp": {"column": "time", "unit": "s"},
            "click": True,
            "conversion": "bought",
            "non_clicks": 2,
        },
    }
    (folder / "mapping.yaml").write_text(yaml.safe_dump(mapping))


def train(folder: Path, quick: bool) -> Path:
    """Run `taiji recommend` on the log, and return the run's folder."""
    small = {"epochs": 1, "min_steps": 10} if quick else {"epochs": 1}
    config = {
        "data": {"source": str(folder / "log")},
        "ranking": small,
        "recommend": {
            "retrievers": {
                "popular": {"model": "popularity", "half_life_days": 28},
                "together": {"model": "cooccurrence"},
                "towers": {"model": "two_towers", "epochs": 1},
            },
            "budget": {"retrieved": RETRIEVED, "candidates": CANDIDATES},
            "most_per_category": 10,
            "length": LENGTH,
            "requests": 200,
        },
        "evaluation": {"resamples": 20},
    }
    (folder / "large.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "taiji.cli", "recommend", str(folder / "large.yaml"), "--name", "large"]
    done = subprocess.run([*command, "--runs", str(folder), "--quiet"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return folder / "large"


class Served:
    """`taiji serve` of a run in a process of its own, on a free port, without a cache of lists."""

    def __init__(self, served: Path, folder: Path, processes: int, store: str | None = None) -> None:
        port = free_port()
        self.url, self.log = f"http://127.0.0.1:{port}", folder / "serve.log"
        values = {
            "port": port,
            "store": store or f"sqlite:{folder / 'store.sqlite3'}",
            "api_processes": processes,
            "workers": 0,
            "recommend.cache_s": 0,
            "recommend.policy": "never",
            "limits.rate": 1e6,
            "limits.burst": 10**6,
        }
        options = [word for key, value in values.items() for word in ("--set", f"serving.{key}={value}")]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "taiji.cli", "serve", str(served), *options],
                stdout=log,
                stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"},
            )

    def __enter__(self) -> Served:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if httpx.get(f"{self.url}/readyz", timeout=10).json().get("ranker") == "ready":
                    return self
            except httpx.HTTPError:
                pass
            time.sleep(0.5)
        raise RuntimeError(self.log.read_text()[-2000:])

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(60)

    def cpu(self) -> float:
        """Return the CPU seconds of the service's processes so far."""
        mine = psutil.Process(self.process.pid)
        return sum(sum(process.cpu_times()[:2]) for process in [mine, *mine.children(recursive=True)])

    def memory(self) -> list[tuple[str, float]]:
        """Return each process of the service, as (role, unshared memory in megabytes)."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [(" ".join(child.cmdline()[-2:])[-40:], child.memory_full_info().uss / 1e6) for child in children]


def ask(
    served: Served, users: list[str], seconds: float, connections: int, rate: float | None, **load: Any
) -> dict[str, Any]:
    """Put a load on the service from a separate process, and return its row.

    Args:
        served: the running service.
        users: users that the requests name.
        seconds: duration.
        connections: number of connections.
        rate: requests per second of an open loop; None for a closed loop.
        load: further arguments of :func:`taiji.serving.load`; by default it requests lists.
    """
    kind: Kind = "recommend"
    asked = {"url": served.url, "users": users, "kind": kind, "seconds": seconds, "connections": connections, **load}
    before, idle = served.cpu(), psutil.cpu_times()
    done = subprocess.run(
        [sys.executable, "-c", LOADER], input=json.dumps({**asked, "rate": rate}), capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    found = json.loads(done.stdout)
    after = psutil.cpu_times()
    busy = sum(after) - after.idle - after.iowait - (sum(idle) - idle.idle - idle.iowait)
    spent = served.cpu() - before
    refused = found["statuses"].pop("503", 0)
    wrong = sum(count for status, count in found["statuses"].items() if not status.startswith("2"))
    return {
        "loop": "closed" if rate is None else f"open, {rate:g}/s",
        "connections": connections,
        "requests/s": found["rate"] * (1 - refused / max(1, found["requests"])),
        "p50 ms": found["p50"],
        "p90 ms": found["p90"],
        "p99 ms": found["p99"],
        "CPU ms a request": 1e3 * spent / max(1, found["requests"]),
        "others' share of the CPU": max(0.0, 1 - spent / busy) if busy else 0.0,
        "refused": refused,
        "wrong": wrong + found["errors"],
    }


def measure(quick: bool) -> Result:
    """Train and serve, and measure both loops."""
    result = Result()
    users, items, rows, seconds, repeats = (300, 2000, 8000, 1.0, 1) if quick else (20_000, 100_000, 600_000, 20.0, 3)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(os.environ.get("TAIJI_BENCHMARK_FOLDER", name))
        if not (folder / "log").exists():
            write_log(folder / "log", users, items, rows)
        finished = folder / "large"
        if not (finished / "recommendation" / "manifest.json").exists():
            finished = train(folder, quick)
        names = [f"user-{number}" for number in range(users)]
        with Served(finished, folder, processes=2) as served:
            ask(served, names, seconds / 4, 8, None)
            for _ in range(repeats):
                for connections, rate in ((16, RATE), (8, None)):
                    result.rows.append(ask(served, names, seconds, connections, rate))
                    result.so_far()
    wrong = sum(row["wrong"] + row["refused"] for row in result.rows)
    result.at_most("answers other than 2xx, and broken connections", wrong, 0)
    return result


if __name__ == "__main__":
    run(measure)
