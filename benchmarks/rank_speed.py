"""`POST /v1/rank` with 1,000 candidates on a real run: latency, throughput, CPU time and memory, on both stores.

`taiji serve` runs in its own processes, and the load generator in a separate one on the same cores. One connection
gives the latency of a service that is not busy, and sixteen give its throughput. ``TAIJI_BENCHMARK_RUN`` names a
finished run of `taiji run`, which has two rankers, with and without features; both score every request. If it is not
set, a small run of `taiji recommend` is trained, which has one ranker. Absolute times depend on the machine, so they
are reported next to their targets; the check counts wrong answers (a 503 of a busy service is counted separately).

    TAIJI_BENCHMARK_RUN=runs/demo python -m benchmarks.rank_speed [--quick] [--json benchmarks/results/rank_speed.json]
"""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.serving.rig import RedisServer

from benchmarks.harness import Result, run
from benchmarks.serving_lists import Served, ask, train, write_log
from taiji.cli.view_commands import config_of
from taiji.serving.traffic import of_run

CANDIDATES = 1000
TARGETS = {1: ("p50 ms", 15.0), 16: ("requests/s", 150.0)}
"""Number of connections to a metric and its target: a largest time in milliseconds, or a smallest rate in requests per
second."""
MEMORY_MB = 400.0
"""Target for the unshared memory of a process of the API."""


def measure(quick: bool) -> Result:
    """Quick: a second per loop on a small run. Full: five loops of ten seconds per store and number of connections."""
    result, seconds, repeats = Result(), 1.0 if quick else 10.0, 1 if quick else 5
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        given = os.environ.get("TAIJI_BENCHMARK_RUN")
        if given is None or quick:
            write_log(folder / "log", 300, 2000, 8000)
            finished = train(folder, quick=True)
        else:
            finished = Path(given)
        users, items = of_run(finished, config_of(finished, None).serving, limit=CANDIDATES)
        for store in ("sqlite", *(["redis"] if RedisServer.installed() else [])):
            url = f"sqlite:{folder / 'rank.sqlite3'}"
            if store == "redis":
                server = RedisServer(folder / "redis")
                server.start()
                stack.callback(server.stop)
                url = server.url
            with Served(finished, folder, processes=2, store=url) as served:
                load: dict[str, Any] = {"kind": "rank", "items": items, "candidates": CANDIDATES}
                ask(served, users, seconds / 2, 16, None, **load)
                for _ in range(repeats):
                    for connections, (metric, target) in TARGETS.items():
                        row = ask(served, users, seconds, connections, None, **load)
                        met = row[metric] <= target if metric == "p50 ms" else row[metric] >= target
                        told = {"target": f"{metric} {target:g}: {'met' if met else 'missed'}"}
                        result.rows.append({"store": store, "items": len(items), **row, **told})
                        result.so_far()
                for role, megabytes in served.memory():
                    result.rows.append({"store": store, "process": role, "own MB": megabytes})
    wrong = sum(row.get("wrong", 0) for row in result.rows)
    result.at_most("answers that are neither 2xx nor 503, and broken connections", wrong, 0)
    return result


if __name__ == "__main__":
    run(measure)
