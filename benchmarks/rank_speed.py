"""How fast does `POST /v1/rank` rank 1,000 candidates on a real run? Latency, throughput, CPU time and memory.

Two stores of the service are measured: SQLite, and Redis if its server is installed. `taiji serve` runs in its own
processes, two of them for HTTP, and the load generator in a separate one on the same cores. Connections wait for each
response before the next request (a closed loop): a single one measures the latency of a service that is not busy,
sixteen measure its throughput.

``TAIJI_BENCHMARK_RUN`` names a finished run of `taiji run`. Such a run has two rankers, with and without features, and
both score every request. Without it, and in a quick run, a small run of `taiji recommend` with a single ranker is
trained first.

Rows: one per store, number of connections and repeat. ``requests/s`` counts ranked requests; ``p50 ms`` to ``p99 ms``
are percentiles of the latency; ``CPU ms a request`` is CPU time of the service; ``others' share of the CPU`` is the
share of the machine's busy time that other processes took, including the load generator; ``refused`` counts responses
with status 503, ``wrong`` all other failures and broken connections. ``target`` says whether a target that was set
beforehand was met; absolute times depend on the machine, so it is not checked. Rows with ``process`` have the unshared
memory of a process, ``own MB``. The only check is that nothing is ``wrong``.

The full run repeats each loop five times for ten seconds, about four minutes in all.

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
"""Metric and target by number of connections: largest latency in milliseconds, or smallest rate in requests per
second."""
MEMORY_MB = 400.0
"""Largest unshared memory of a process that meets the target, in MB."""


def measure(quick: bool) -> Result:
    """Run the loops: one second each on a small run if ``quick``, else five repeats of ten seconds per store and number
    of connections."""
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
                    told = {"target": f"own MB {MEMORY_MB:g}: {'met' if megabytes <= MEMORY_MB else 'missed'}"}
                    result.rows.append({"store": store, "process": role, "own MB": megabytes, **told})
    wrong = sum(row.get("wrong", 0) for row in result.rows)
    result.at_most("answers that are neither 2xx nor 503, and broken connections", wrong, 0)
    return result


if __name__ == "__main__":
    run(measure)
