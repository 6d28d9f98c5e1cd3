"""The service under overload: goodput by offered load, and health checks during floods of connections.

A ranking is replaced by a sleep of fixed time, so that the capacity is known: 1 / that time. An open loop sends half to
twenty times as many requests as the capacity allows; goodput is the rate of responses with status 200 within two
seconds after their requests were due. At three times the capacity, each policy for kept lists is measured with users
who have such a list; :mod:`benchmarks.cache_regret` measures the value of kept lists. Then hundreds of connections send
nothing or do not finish their heads, or a few send a header of 300 MiB, while a probe requests `/healthz`. Times depend
on this machine; the checks are shares, and the limit of one second for a health check.
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
    """Serve rankings and lists that take a fixed number of seconds each, with settings for the lists."""
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
    """Measure the goodput of a fresh service at multiples of its capacity."""
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
    """Measure lists for users with a kept list at three times the capacity, by policy."""
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
            result.at_least(f"answered of {TIMES:g} times the capacity, share, {policy}", row["answered, share"], 1.0)
            result.at_most(f"goodput: p99 over the budget of {budget_ms:g} ms, {policy}", share, 1.0)


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
    """Send one header of a given size, and return the number of bytes accepted before the service closed the
    connection."""
    sent = 0
    with socket.create_connection(address, timeout=30) as connection, suppress(OSError):
        connection.sendall(HEAD)
        while sent < size:
            sent += connection.send(b"a" * 65536)
    return sent


def worst_health(url: str, until: Callable[[], bool]) -> float:
    """Return the longest time of a health check until a condition holds; infinite if a check did not return 200."""
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
    """Measure health checks and memory of a service under each flood."""
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
    result.at_most(f"MiB of a header of {size >> 20} that were taken", max(taken) / 2**20, 20)
    result.at_most("MiB by which the API process grew", grown, 100)


def measure(quick: bool) -> Result:
    """Quick: ten times the capacity for a second. Full: a curve of rank and recommend to twenty times, 20 s per
    point."""
    result = Result()
    floods(result, 1100, 300 << 20)
    kinds: tuple[Kind, ...] = ("rank",) if quick else ("rank", "recommend")
    for kind in kinds:
        # Responses that arrive after the end do not count, which costs a third of a second of the capacity.
        curve(result, kind, (1.0, 10.0) if quick else (0.5, 1.0, 2.0, 5.0, 10.0, 20.0), 4.0 if quick else 20.0)
    kept_lists(result, 3.0 if quick else 20.0)
    for row in result.rows:
        if row.get("offered, times the capacity", 0) >= 10:
            name = f"goodput of {row['what']} at {row['offered, times the capacity']:g} times the capacity, share of it"
            result.at_least(name, row["goodput, share of the capacity"], 0.8)
    regret(result, quick)
    result.at_most("answers other than 200 and 503", sum(row.get("other", 0) for row in result.rows), 0)
    return result


if __name__ == "__main__":
    run(measure)
