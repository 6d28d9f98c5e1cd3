"""How many requests per second does the service answer over HTTP, how fast, and how soon does a response include a new
event?

The models are stand-ins that take no time, so HTTP server, queue, worker and store are measured, on SQLite and on Redis
(if its server is installed). Service and load generator share the machine.

Rows by ``what``: ``health`` (`/healthz`, the cost of the HTTP server and of routing, without a store), ``read``
(features of a user), ``batch`` (features of several users), ``rank``, ``write`` (events). Each runs as a closed loop,
in which 16 connections send the next request as soon as the last one is answered. ``read at 1,000/s`` and ``read at
1,200/s`` are open loops: requests are due at fixed times, from which latency counts. ``event to fresh row, no LLM
time`` is the time from sending an event until a row that includes it can be read. ``bytes of a feature answer`` has the
size of a response in the column ``requests``.

Columns: ``requests``; ``per_s``, requests per second; ``p50_ms`` to ``worst_ms``, percentiles of the latency and its
maximum; ``api_cpu_us``, CPU microseconds of the HTTP process per request; ``not_2xx``, other responses and broken
connections; ``target``: whether an open loop met the targets (its rate, 15 ms at the 99th percentile, only 2xx).
Absolute times depend on the machine and are not checked. The checks are that all responses are 2xx, and that reads
reach at least .3 of the throughput of `/healthz`. The full run takes about three minutes.

    python -m benchmarks.serving [--quick] [--json benchmarks/results/serving.json]
"""

from __future__ import annotations

import statistics
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
from tests.serving.rig import RedisServer, Service

from benchmarks.harness import Result, run
from taiji.serving import load
from taiji.serving.settings import ServingSettings
from taiji.serving.traffic import Kind, LoadReport

USERS = [f"user-{number}" for number in range(2000)]
ITEMS = [f"item-{number}" for number in range(500)]
TARGET_RATE, TARGET_P99_MS = 1000.0, 15.0
"""Targets for reads: requests per second, and milliseconds at the 99th percentile. They are reported, not checked."""


class Bench:
    """Running service on one store, with stand-ins for the models."""

    def __init__(self, store: str, folder: Path, stack: ExitStack) -> None:
        self.store, url = store, f"sqlite:{folder / 'store.sqlite3'}"
        if store == "redis":
            server = RedisServer(folder / "redis")
            server.start()
            stack.callback(server.stop)
            url = server.url
        world = folder / "run"
        world.mkdir(parents=True)
        (world / "version").write_text("echo-1")
        (world / "users").write_text("\n".join(USERS))
        limits = {"rate": 1e6, "burst": 10**6}
        settings = ServingSettings.model_validate(
            {
                "store": url,
                "port": 0,
                "backend": "tests.serving.doubles",
                "trigger": {"window_s": 0.0},
                "limits": limits,
            }
        )
        self.service = Service(world, settings)
        self.service.start()
        stack.callback(self.service.stop)
        while httpx.get(f"{self.service.url}/readyz").json()["ranker"] != "ready":
            time.sleep(0.05)
        self.api = psutil.Process(self.service.children("api")[0])

    def measure(self, kind: Kind, seconds: float, rate: float | None = None) -> tuple[LoadReport, dict[str, Any]]:
        """Put a load on the service. Return the report of the load and its row, with the CPU time of the HTTP
        process."""
        before = sum(self.api.cpu_times()[:2])
        report = load(self.service.url, USERS, ITEMS, kind=kind, seconds=seconds, connections=16, rate=rate, seed=1)
        cpu = (sum(self.api.cpu_times()[:2]) - before) / max(1, report.requests) * 1e6
        label = kind if rate is None else f"{kind} at {rate:,.0f}/s"
        other = sum(number for status, number in report.statuses.items() if not 200 <= status < 300) + report.errors
        row = {
            "store": self.store,
            "what": label,
            "requests": report.requests,
            "per_s": report.rate,
            "p50_ms": report.p50,
            "p90_ms": report.p90,
            "p99_ms": report.p99,
            "worst_ms": report.worst,
            "api_cpu_us": cpu,
            "not_2xx": other,
        }
        return report, row

    def freshness(self, repeats: int) -> dict[str, Any]:
        """Return the row of the times from sending an event to reading a row that includes it, one user at a time."""
        seconds = []
        with httpx.Client(base_url=self.service.url) as client:
            for number in range(repeats):
                user = f"fresh-{number}"
                body = {
                    "events": [
                        {
                            "user_id": user,
                            "item_id": "item-1",
                            "timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
                        }
                    ]
                }
                start = time.perf_counter()
                assert (
                    client.post(
                        "/v1/events", json=body, headers={"Idempotency-Key": f"{self.store}-{number}"}
                    ).status_code
                    == 202
                )
                while client.get(f"/v1/features/{user}").status_code != 200:
                    assert time.perf_counter() - start < 30
                    time.sleep(0.002)
                seconds.append(time.perf_counter() - start)
        return {
            "store": self.store,
            "what": "event to fresh row, no LLM time",
            "requests": repeats,
            "p50_ms": statistics.median(seconds) * 1e3,
            "worst_ms": max(seconds) * 1e3,
        }

    def bytes_a_row(self) -> dict[str, Any]:
        """Return the row with the size of a response."""
        size = len(httpx.get(f"{self.service.url}/v1/features/{USERS[0]}").content)
        return {"store": self.store, "what": "bytes of a feature answer (8 ids, 50 items)", "requests": size}


def measure(quick: bool) -> Result:
    """Run the loops: 0.4 seconds each if ``quick``, else five, with three repeats of health checks and reads."""
    seconds, repeats = (0.4, 1) if quick else (5.0, 3)
    result = Result()
    stores = ["sqlite", *(["redis"] if RedisServer.installed() else [])]
    failures, floors, reads = 0, {}, {}
    for store in stores:
        with ExitStack() as stack:
            bench = Bench(store, Path(stack.enter_context(tempfile.TemporaryDirectory())), stack)
            bench.measure("read", 0.5)
            for _ in range(repeats):
                for kind, rate in (
                    ("health", None),
                    ("read", None),
                    ("read", TARGET_RATE),
                    ("read", 1.2 * TARGET_RATE),
                ):
                    report, row = bench.measure(kind, seconds, rate)  # type: ignore[arg-type]
                    if rate is not None:
                        fast = report.p99 is not None and report.p99 <= TARGET_P99_MS
                        row["target"] = "met" if report.rate >= 0.99 * rate and fast and report.all_2xx else "missed"
                    else:
                        (floors if kind == "health" else reads).setdefault(store, []).append(report.rate)
                    failures += row["not_2xx"]
                    result.rows.append(row)
            result.rows.append(bench.bytes_a_row())
            for kind in ("batch", "rank", "write"):
                report, row = bench.measure(kind, seconds)  # type: ignore[arg-type]
                failures += row["not_2xx"]
                result.rows.append(row)
            result.rows.append(bench.freshness(5 if quick else 50))
    result.at_most("answers other than 2xx, and broken connections", failures, 0)
    for store in stores:
        ratio = statistics.median(a / b for a, b in zip(reads[store], floors[store]))
        result.at_least(f"feature reads, share of /healthz throughput ({store})", ratio, 0.3)
    return result


if __name__ == "__main__":
    run(measure)
