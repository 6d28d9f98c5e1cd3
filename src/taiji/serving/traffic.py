"""Load generator that is light enough to share two cores with the measured service.

It uses one process, one event loop, and raw HTTP/1.1 over keep-alive connections. With a rate, it is an open loop:
request n is due at ``start + n / rate`` even if earlier responses are late. The latency of a request is measured from
the time at which it was due, so a stall of the server increases the latency of all requests that had to wait. Without a
rate, every connection sends its next request as soon as it gets a response.
"""

from __future__ import annotations

import asyncio
import heapq
import json
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import quote, urlsplit

import numpy as np

from taiji.core.errors import ConfigError, InputError, ResourceError
from taiji.core.event_loop import run_coroutine
from taiji.serving.settings import ServingSettings, loopback

Kind = Literal["read", "batch", "write", "rank", "recommend", "health"]
BATCH_USERS, WRITE_EVENTS, RANK_ITEMS, LIST_ITEMS = 50, 10, 50, 50
PREPARED_REQUESTS = 2000
PATIENCE_S = 2.0
"""Largest latency of a response that counts as goodput, in seconds."""
RECONNECT_S = 0.1
"""Pause in seconds after a failed attempt to open a connection again."""
REFUSED = 503
"""Status of a request that is rejected because the service is overloaded or not ready."""


@dataclass
class LoadReport:
    """Result of a load run.

    ``statuses`` counts responses per status. ``errors`` counts requests without a response and failed attempts to open
    a connection during the load. A connection that the service closes between two requests is not an error.
    ``requests`` and ``rate`` (per second) count all responses. Latencies are in milliseconds and leave out responses
    with 503, because rejections are fast. ``goodput`` is the rate of successful responses that arrived during the load
    and at most :data:`PATIENCE_S` after their requests were due. Without any latency (no response, or only 503), the
    percentiles and ``worst`` are None.
    """

    kind: str
    seconds: float
    requests: int
    rate: float
    p50: float | None
    p90: float | None
    p99: float | None
    worst: float | None
    goodput: float
    statuses: dict[int, int] = field(default_factory=dict)
    errors: int = 0

    @property
    def all_2xx(self) -> bool:
        """True if every request was answered successfully."""
        return not self.errors and all(200 <= status < 300 for status in self.statuses)


def _address(url: str) -> tuple[str, int]:
    """Return host and port; empty and 0 if the URL does not have the form ``http://HOST:PORT``."""
    place = urlsplit(url)
    try:
        return (place.hostname or "", place.port or 0) if place.scheme == "http" else ("", 0)
    except ValueError:  # the port is not a number
        return "", 0


def load(
    url: str,
    users: Sequence[str],
    items: Sequence[str] = (),
    *,
    kind: Kind = "read",
    seconds: float = 10.0,
    connections: int = 16,
    rate: float | None = None,
    key: str | None = None,
    seed: int = 0,
    candidates: int = RANK_ITEMS,
) -> LoadReport:
    """Send requests of one kind for some seconds, and measure throughput and latency.

    Args:
        url: URL of the service, ``http://127.0.0.1:PORT``, on this machine only.
        users: ids of the requested users, for example from :func:`of_run`; a read of a user without a row returns 404.
        items: ids for events and candidates.
        kind: read (one user), batch (50 users), write (10 events), rank (``candidates`` items), recommend (a list of
            50) or health.
        seconds: duration.
        connections: number of connections; with a rate, the largest number, and connections are opened as needed.
        rate: requests per second; None for as many as possible.
        key: API key.
        seed: random seed of the choice of users and items.
        candidates: number of items per ranking request.

    Raises:
        ConfigError: the address is not on this machine, or the load is not valid.
        InputError: the kind needs ids that are missing.
        ResourceError: no service responds at the URL.
    """
    host, port = _address(url)
    if not loopback(host) or not port:
        raise ConfigError(
            "The address is not on this machine.",
            where=url,
            expected="a service on this machine, such as http://127.0.0.1:PORT",
            fix="run the command on the machine of the service; load tests run against this machine only",
        )
    if kind not in get_args(Kind) or seconds <= 0 or min(connections, candidates) < 1:
        raise ConfigError(
            "The options of the load test are invalid.",
            where=f"kind {kind}, {seconds:g} seconds, {connections} connections, {candidates} candidates",
            expected=f"kind {', '.join(get_args(Kind))}; more than 0 seconds; at least 1 connection and 1 candidate",
        )
    if kind != "health" and (not users or (kind in ("write", "rank") and not items)):
        raise InputError(
            "There are no users or items to request.",
            where=f"load --kind {kind}",
            expected="users, and items for writing and ranking",
        )
    headers = f"Host: {urlsplit(url).netloc}\r\n" + (f"Authorization: Bearer {key}\r\n" if key else "")
    make = _maker(kind, users, items, headers, seed, candidates)
    run = _Run(host, port, make, connections, seconds, rate)
    try:
        import uvloop
    except ImportError:
        run_coroutine(run.run())
    else:
        run_coroutine(run.run(), uvloop.run)
    latencies = 1e3 * np.asarray(run.latencies)
    shares = (50, 90, 99, 100)
    p50, p90, p99, worst = np.percentile(latencies, shares).tolist() if latencies.size else [None] * 4
    return LoadReport(
        kind,
        run.seconds,
        run.statuses.total(),
        run.statuses.total() / run.seconds,
        p50,
        p90,
        p99,
        worst,
        run.good / run.seconds,
        dict(sorted(run.statuses.items())),
        run.errors,
    )


def of_run(run: str | Path, settings: ServingSettings, limit: int = 1000) -> tuple[list[str], list[str]]:
    """Return at most ``limit`` users and ``limit`` items of a run's feature rows, or of its log if it has no
    features."""
    from taiji.serving.live_dataset import World
    from taiji.serving.releases import backend

    if not backend(settings).release(Path(run).resolve()).features:
        world = World(Path(run))
        return list(islice(world.users, limit)), list(islice(world.items, limit))
    rows = list(islice(chain.from_iterable(backend(settings).rows(Path(run).resolve())), limit))
    items = dict.fromkeys(chain.from_iterable(row.neighbour_items for row in rows))
    return [row.user for row in rows], list(islice(items, limit))


def _maker(
    kind: Kind, users: Sequence[str], items: Sequence[str], headers: str, seed: int, candidates: int
) -> Callable[[], bytes]:
    """Return a function that returns the bytes of the next request; all requests but writes are prepared in advance."""
    rng = np.random.default_rng([seed, 8])

    def pick(values: Sequence[str], amount: int) -> list[str]:
        return [values[int(place)] for place in rng.integers(0, len(values), amount)]

    def post(path: str, body: Any, extra: str = "") -> bytes:
        text = json.dumps(body).encode()
        return (
            f"POST {path} HTTP/1.1\r\n{headers}{extra}Content-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n".encode()
            + text
        )

    def write() -> bytes:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        events = [
            {"user_id": u, "item_id": i, "timestamp": now}
            for u, i in zip(pick(users, WRITE_EVENTS), pick(items, WRITE_EVENTS))
        ]
        return post("/v1/events", {"events": events}, f"Idempotency-Key: {uuid.uuid4()}\r\n")

    def one() -> bytes:
        if kind == "read":
            return f"GET /v1/features/{quote(pick(users, 1)[0], safe='')} HTTP/1.1\r\n{headers}\r\n".encode()
        if kind == "batch":
            return post("/v1/features:batch", {"users": pick(users, BATCH_USERS)})
        if kind == "rank":
            return post("/v1/rank", {"user": pick(users, 1)[0], "items": pick(items, candidates)})
        if kind == "recommend":
            return post("/v1/recommend", {"user": pick(users, 1)[0], "k": LIST_ITEMS})
        return f"GET /healthz HTTP/1.1\r\n{headers}\r\n".encode()

    if kind == "write":
        return write
    prepared = [one() for _ in range(PREPARED_REQUESTS if kind in ("read", "recommend") else 200)]
    order = rng.integers(0, len(prepared), 1 << 16).tolist()
    place = iter(range(1 << 62))
    return lambda: prepared[order[next(place) & 0xFFFF]]


class _Run:
    def __init__(
        self, host: str, port: int, make: Callable[[], bytes], connections: int, seconds: float, rate: float | None
    ) -> None:
        self._host, self._port, self._make, self._connections, self._wanted, self._rate = (
            host,
            port,
            make,
            connections,
            seconds,
            rate,
        )
        self.latencies: list[float] = []
        self.statuses: Counter[int] = Counter()
        self.errors = self.good = 0
        self.seconds = seconds
        self._made: set[_Connection] = set()
        self._idle: deque[_Connection] = deque()
        self._due: list[float] = []
        self._opening: set[asyncio.Task[None]] = set()
        self.open = True

    async def run(self) -> None:
        try:
            for _ in range(self._connections if self._rate is None else 1):
                await self._connect()
        except OSError as error:
            raise ResourceError(
                "No service responds at this address.",
                where=f"{self._host}:{self._port}",
                found=str(error),
                fix="start it with taiji serve RUN",
            ) from error
        start = time.perf_counter()
        end, sent = start + self._wanted, 0
        if self._rate is None:
            for connection in list(self._made):
                self._next(connection)
            await asyncio.sleep(self._wanted)
        else:
            self._idle.extend(self._made)
            while (now := time.perf_counter()) < end:
                while start + sent / self._rate <= now:
                    heapq.heappush(self._due, start + sent / self._rate)
                    sent += 1
                self.pump()
                await asyncio.sleep(max(0.0, start + sent / self._rate - time.perf_counter()))
        self.seconds = time.perf_counter() - start
        self.open = False
        for task in self._opening:
            task.cancel()
        deadline = time.perf_counter() + 5
        while any(connection.since is not None for connection in self._made) and time.perf_counter() < deadline:
            await asyncio.sleep(0.01)
        self.errors += sum(connection.since is not None for connection in self._made) + len(self._due)
        for connection in self._made:
            connection.close()

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: _Connection(self), self._host, self._port)
        self._made.add(connection)
        return connection

    def _open(self) -> None:
        task = asyncio.get_running_loop().create_task(self._connect_and_use())
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _connect_and_use(self) -> None:
        while self.open:
            try:
                connection = await self._connect()
            except OSError:
                self.errors += 1
                await asyncio.sleep(RECONNECT_S)
            else:
                self._next(connection)
                return

    def lost(self, connection: _Connection, waiting: bool) -> None:
        """Forget a closed connection, and count an error if it was still waiting for a response."""
        self.errors += waiting
        if self.open:
            self._made.discard(connection)
            if self._rate is None:
                self._open()

    def pump(self) -> None:
        """Send due requests over idle connections, and open connections for the others as far as the limit allows."""
        while self._due and self._idle:
            connection = self._idle.popleft()
            if not connection.closing:
                connection.ask(self._make(), heapq.heappop(self._due))
        opening = len(self._opening)
        for _ in range(min(len(self._due), self._connections - len(self._made)) - opening):
            self._open()

    def _next(self, connection: _Connection) -> None:
        """Send the next request over a connection, now or when one is due."""
        if self._rate is not None:
            self._idle.append(connection)
            self.pump()
        elif self.open and not connection.closing:
            connection.ask(self._make(), time.perf_counter())

    def answered(self, connection: _Connection, status: int, since: float) -> None:
        latency = time.perf_counter() - since
        if status != REFUSED:
            self.latencies.append(latency)
        self.statuses[status] += 1
        self.good += self.open and 200 <= status < 300 and latency <= PATIENCE_S
        self._next(connection)


class _Connection(asyncio.Protocol):
    """One keep-alive connection with at most one open request."""

    def __init__(self, run: _Run) -> None:
        self._run, self._buffer, self._need, self._last = run, b"", 0, False
        self.since: float | None = None
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        waiting, self.since = self.since is not None, None
        self._run.lost(self, waiting)

    @property
    def closing(self) -> bool:
        """True if no further request can be sent."""
        return bool(self._transport.is_closing())

    def ask(self, request: bytes, since: float) -> None:
        """Send a request; ``since`` is the time when it was due."""
        self.since = since
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        if not self._need:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._buffer[:end].lower()
            place = head.find(b"content-length: ")
            length = int(head[place + 16 :].split(b"\r", 1)[0]) if place >= 0 else 0
            self._need, self._last = end + 4 + length, b"\nconnection: close" in head
        if len(self._buffer) >= self._need:
            status, since = int(self._buffer[9:12]), self.since
            self._buffer, self._need, self.since = b"", 0, None
            if self._last:
                self.close()
            if since is not None:
                self._run.answered(self, status, since)

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()
