"""Does the service keep answering under overload? Goodput by offered load, kept lists, and health checks during floods.

A stand-in for the models sleeps for 20 ms per ranking or list, so the capacity is known: 50 requests per second. An
open loop sends requests at fixed times, whether or not earlier ones were answered, at half to twenty times the
capacity. *Goodput* is the rate of responses with status 200 within two seconds after the request was due.

Three parts:

- ``rank`` and ``recommend``: goodput at each multiple of the capacity, one after another on one service.
- ``lists, POLICY``: at three times the capacity, users who all have a *kept list* (an earlier list that the service may
  show again) request lists, under the policies ``never``, ``overloaded`` and ``threshold``. What a kept list is worth
  is measured by :mod:`benchmarks.cache_regret`, whose rows are added here.
- floods: 1,100 connections send nothing (``silent``) or never finish their request head, or 8 connections each send a
  header of 300 MiB, while a probe requests `/healthz`.

Columns: ``offered``, the requests sent, and ``goodput``, each per second and relative to the capacity (at half the
capacity, ``goodput`` is relative to the requests sent); ``answered, share``, answers per request; ``from the cache,
share``, kept lists per answer; ``p50_ms`` and ``p99_ms``, the latency counted from when a request was due; ``p99 over
the budget``, the latter divided by the allowed latency; ``refused``, responses with status 503; ``other``, all other
responses and broken connections; ``slowest health, s``, the longest health check during a flood; ``API grew by, MiB``,
the growth of the API process; ``taken, MiB``, the bytes of the large header that were accepted.

Times depend on the machine. The checks are therefore limits on shares and on memory, and one second for a health check.
The full run takes six minutes plus the time of :mod:`benchmarks.cache_regret`; ``--quick`` shortens the curves and the
kept lists to a few seconds, and leaves out the curve of `recommend`.

    python -m benchmarks.overload [--quick] [--json benchmarks/results/overload.json]
"""

from __future__ import annotations

import math
import re
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
from tests.serving.rig import Service

from benchmarks.cache_regret import TIMES, regret
from benchmarks.harness import Result, run
from taiji.serving import load
from taiji.serving.settings import ServingSettings
from taiji.serving.traffic import LIST_ITEMS, PATIENCE_S, Kind

USERS = [f"user-{number}" for number in range(500)]
ITEMS = [f"item-{number}" for number in range(50)]
SECONDS_EACH = 0.02
HEALTH_S = 1.0
"""Limit in seconds for a response of `/healthz` under every flood."""
HEAD = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX: "


@contextmanager
def served(each: float, **recommend: object) -> Iterator[Service]:
    """Run a service in which every ranking and every list takes ``each`` seconds. ``recommend`` has its settings for
    lists."""
    with tempfile.TemporaryDirectory() as folder:
        world = Path(folder) / "run"
        world.mkdir()
        for name, text in (("version", "echo-1"), ("users", "\n".join(USERS)), ("rank_seconds", str(each))):
            (world / name).write_text(text)
        values = {
            "port": 0,
            "workers": 0,
            "backend": "tests.serving.doubles",
            "limits": {"rate": 1e6, "burst": 10**6},
            "recommend": {"cache_s": 0.0, **recommend},
        }
        service = Service(world, ServingSettings.model_validate(values))
        service.start()
        try:
            while httpx.get(f"{service.url}/readyz").json().get("ranker") != "ready":
                time.sleep(0.05)
            yield service
        finally:
            service.stop()


def curve(result: Result, kind: Kind, times: tuple[float, ...], seconds: float) -> None:
    """Add the goodput of one service at each multiple of its capacity, in the given order."""
    capacity = 1 / SECONDS_EACH
    with served(SECONDS_EACH, policy="never") as service:
        for factor in times:
            report = load(
                service.url, USERS, ITEMS, kind=kind, seconds=seconds, connections=400, rate=factor * capacity
            )
            result.rows.append(
                {
                    "what": kind,
                    "offered, times the capacity": factor,
                    "offered/s": factor * capacity,
                    "goodput/s": report.goodput,
                    "goodput, share of the capacity": report.goodput / min(capacity, factor * capacity),
                    "p50_ms": report.p50,
                    "p99_ms": report.p99,
                    "refused": report.statuses.get(503, 0),
                    "other": sum(n for status, n in report.statuses.items() if status not in (200, 503))
                    + report.errors,
                }
            )
            result.so_far()


def kept_lists(result: Result, seconds: float) -> None:
    """Add a row per policy: users who have a kept list request lists at three times the capacity."""
    users = USERS[:50]
    for policy, settings in (("never", {}), ("overloaded", {}), ("threshold", {"load": 0.2})):
        budget_ms = 1e3 * (0.5 if policy == "threshold" else PATIENCE_S)
        with served(SECONDS_EACH, policy=policy, policy_settings=settings, p99_ms=budget_ms) as service:
            for user in users:
                httpx.post(f"{service.url}/v1/recommend", json={"user": user, "k": LIST_ITEMS}).raise_for_status()
            report = load(
                service.url, users, kind="recommend", seconds=seconds, connections=400, rate=TIMES / SECONDS_EACH
            )
            counted = httpx.get(f"{service.url}/metrics").text
        shown_again = re.search(r'^taiji_lists_total{from="kept"} (\S+)', counted, re.MULTILINE)
        answers = report.statuses.get(200, 0)
        share = math.inf if report.p99 is None else report.p99 / budget_ms
        row: dict[str, Any] = {
            "what": f"lists, {policy}",
            "offered, times the capacity": TIMES,
            "offered/s": TIMES / SECONDS_EACH,
            "goodput/s": report.goodput,
            "answered, share": answers / (report.requests + report.errors),
            "from the cache, share": float(shown_again[1]) / answers if shown_again else 0.0,
            "p50_ms": report.p50,
            "p99_ms": report.p99,
            "p99 over the budget": share,
            "refused": report.statuses.get(503, 0),
            "other": report.requests - answers - report.statuses.get(503, 0) + report.errors,
        }
        result.rows.append(row)
        result.so_far()
        if policy != "never":
            result.at_least(
                f"share answered at {TIMES:g} times the capacity, policy {policy}", row["answered, share"], 1.0
            )
            result.at_most(f"goodput: p99 latency over the budget of {budget_ms:g} ms, policy {policy}", share, 1.0)


def silent(address: tuple[str, int], amount: int) -> list[socket.socket]:
    """Open connections that send nothing."""
    return [socket.create_connection(address, timeout=5) for _ in range(amount)]


def slow(address: tuple[str, int], amount: int) -> list[socket.socket]:
    """Open connections that begin a head and do not finish it."""
    made = silent(address, amount)
    for connection in made:
        with suppress(OSError):
            connection.sendall(HEAD)
    return made


def large(address: tuple[str, int], size: int) -> int:
    """Send one header of ``size`` bytes. Return the number of bytes sent before the service closed the connection."""
    sent = 0
    with socket.create_connection(address, timeout=30) as connection, suppress(OSError):
        connection.sendall(HEAD)
        while sent < size:
            sent += connection.send(b"a" * 65536)
    return sent


def worst_health(url: str, until: Callable[[], bool]) -> float:
    """Request health checks until a condition holds. Return the longest time in seconds; infinite if a check did not
    return 200."""
    worst = 0.0
    while True:
        last, start = until(), time.monotonic()
        try:
            if httpx.get(f"{url}/healthz", timeout=30).status_code != 200:
                return math.inf
        except httpx.HTTPError:
            return math.inf
        worst = max(worst, time.monotonic() - start)
        if last:
            return worst
        time.sleep(0.05)


def floods(result: Result, connections: int, size: int) -> None:
    """Add the slowest health check under each flood, and the growth of the API process."""
    with served(0.0) as service, ExitStack() as stack:
        host, _, port = service.url.removeprefix("http://").rpartition(":")
        address, api = (host, int(port)), psutil.Process(service.children("api")[0])
        before = api.memory_info().rss
        taken: list[int] = []
        senders = [threading.Thread(target=lambda: taken.append(large(address, size))) for _ in range(8)]
        for sender in senders:
            sender.start()
        found = {"8 large heads": worst_health(service.url, lambda: not any(s.is_alive() for s in senders))}
        for name, flood in (("silent", silent), ("unfinished heads", slow)):
            end = time.monotonic() + 2
            for connection in flood(address, connections):
                stack.enter_context(connection)
            found[f"{connections} {name}"] = worst_health(service.url, lambda end=end: time.monotonic() > end)  # type: ignore[misc]
        grown = (api.memory_info().rss - before) / 2**20
    for name, seconds in found.items():
        result.rows.append(
            {"what": name, "slowest health, s": seconds, "API grew by, MiB": grown, "taken, MiB": max(taken) / 2**20}
        )
        result.at_most(f"seconds until health answers under {name}", seconds, HEALTH_S)
    result.at_most(f"MiB accepted of a header of {size >> 20} MiB", max(taken) / 2**20, 20)
    result.at_most("MiB by which the API process grew", grown, 100)


def measure(quick: bool) -> Result:
    """Run all parts. A quick run has the curve of `rank` at one and ten times the capacity, 4 s each; a full run has
    the curves of `rank` and `recommend` at six multiples, 20 s each."""
    result = Result()
    floods(result, 1100, 300 << 20)
    kinds: tuple[Kind, ...] = ("rank",) if quick else ("rank", "recommend")
    for kind in kinds:
        # Responses after the end do not count, so goodput is slightly too low.
        curve(result, kind, (1.0, 10.0) if quick else (0.5, 1.0, 2.0, 5.0, 10.0, 20.0), 4.0 if quick else 20.0)
    kept_lists(result, 3.0 if quick else 20.0)
    for row in result.rows:
        if row.get("offered, times the capacity", 0) >= 10:
            times = row["offered, times the capacity"]
            name = f"goodput at {times:g} times the capacity, share of the capacity: {row['what']}"
            result.at_least(name, row["goodput, share of the capacity"], 0.8)
    regret(result, quick)
    result.at_most("answers other than 200 and 503", sum(row.get("other", 0) for row in result.rows), 0)
    return result


if __name__ == "__main__":
    run(measure)
