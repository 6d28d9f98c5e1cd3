"""Clients that put load on the service in :mod:`benchmarks.faults`, and the ledger of what it has acknowledged."""

from __future__ import annotations

import hashlib
import http.client
import json
import random
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from benchmarks.list_faults import ACTING, Shoppers

if TYPE_CHECKING:
    from benchmarks.faults import World

USERS = [f"user-{number:03d}" for number in range(60)]
EVERYBODY = [*USERS, *ACTING]


@dataclass
class Books:
    """Ledger of the clients.

    Attributes:
        events: ids of the acknowledged events, by user.
        batches: number of acknowledged batches.
        repeats: number of times that a batch was sent again, because it had not been acknowledged.
        reads: number of answered reads.
        wrong_reads: number of reads that returned a row or a list of the wrong user or release.
        regressions: number of reads that returned an older row than an earlier read.
        switches: start and end of each switch of the served release (times of the monotonic clock), and the new
            release.
        lock: lock of these values.
    """

    events: dict[str, set[str]] = field(default_factory=lambda: {user: set() for user in EVERYBODY})
    batches: int = 0
    repeats: int = 0
    reads: int = 0
    wrong_reads: int = 0
    regressions: int = 0
    switches: list[tuple[float, float, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Client:
    """Keep-alive connection that is reopened after every failure."""

    def __init__(self, url: str) -> None:
        self._place, self._connection = url.removeprefix("http://"), None

    def ask(self, method: str, path: str, body: Any = None, key: str = "") -> tuple[int, Any]:
        """Send a request, and return status and JSON of the response; the status is 0 if there was no response."""
        try:
            if self._connection is None:
                self._connection: Any = http.client.HTTPConnection(self._place, timeout=5)
            headers = {"Content-Type": "application/json", **({"Idempotency-Key": key} if key else {})}
            self._connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = self._connection.getresponse()
            return answer.status, json.loads(answer.read() or b"null")
        except (OSError, http.client.HTTPException, ValueError):
            if self._connection is not None:
                self._connection.close()
            self._connection = None
            return 0, None


def event_name(key: str, place: int) -> str:
    """Return the id that the service gives to an event, without the time of arrival with which the id begins.

    Args:
        key: idempotency key of the event's batch, which is sent without an API key.
        place: position of the event in the batch.
    """
    digest = hashlib.sha256(b"local\0" + key.encode()).hexdigest()
    return f"{digest[:32]}-{place:04d}"


def name_of(event_id: str) -> str:
    """Return the id of a stored event without its time of arrival, for comparison with :func:`event_name`."""
    return event_id.partition("-")[2]


class Load:
    """Clients of the service, one thread each: three writers, a reader, a shopper who requests lists and rankings, and
    a client that switches the release.

    Args:
        world: the service; there is no shopper if its lists come from a stand-in.
        seed: seed of all random draws.
    """

    def __init__(self, world: World, seed: int) -> None:
        self.books, self._world, self._seed = Books(), world, seed
        self._url, self._releases = world.service.url, world.releases
        self._stop = threading.Event()
        self.books.switches.append((0.0, 0.0, self._releases[0]))
        self.readers, self.shoppers = self._shoppers("read"), self._shoppers("shop")
        targets = [*(partial(self._write, number) for number in range(3)), self._read, self._switch]
        targets += [self._shop] * world.real
        self._threads = [threading.Thread(target=target) for target in targets]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Wait until all clients have finished, so that every batch is acknowledged."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def settle(self) -> None:
        """Request a list and a ranking for each user of :data:`ACTING`, whose events have all been absorbed by then."""
        for user in ACTING if self._world.real else ():
            self._world.until_answering()
            for ask in (self.shoppers.list_of, self.shoppers.ranking_of):
                for _ in range(100):
                    if ask(user, settled=True):
                        break
                    time.sleep(0.2)

    def _shoppers(self, name: str) -> Shoppers:
        client, rng = Client(self._url), random.Random(f"{self._seed}-{name}-keys")
        post: Callable[[list[dict[str, Any]]], list[str]] = lambda events: self._post(client, rng, events)  # noqa: E731
        return Shoppers(client.ask, post, self._behind, lambda: -self._world.offset, f"{self._seed}-{name}")

    def _post(self, client: Client, rng: random.Random, events: list[dict[str, Any]]) -> list[str]:
        """Send a batch until it is acknowledged, enter it in the ledger, and return the ids of its events."""
        key, repeats = str(uuid.UUID(int=rng.getrandbits(128))), 0
        while client.ask("POST", "/v1/events", {"events": events}, key)[0] != 202:
            repeats += 1
            time.sleep(rng.uniform(0.01, 0.1))
        if rng.random() < 0.1:  # as a client that did not receive the acknowledgement
            client.ask("POST", "/v1/events", {"events": events}, key)
        ids = [event_name(key, place) for place in range(len(events))]
        with self.books.lock:
            self.books.batches += 1
            self.books.repeats += repeats
            for event, number in zip(events, ids):
                self.books.events[event["user_id"]].add(number)
        return ids

    def _write(self, number: int) -> None:
        rng, client = random.Random(f"{self._seed}-{number}"), Client(self._url)
        while not self._stop.is_set():
            users = rng.choices(USERS, k=rng.randint(1, 5))
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            events = [{"user_id": user, "item_id": f"item-{rng.randint(0, 99)}", "timestamp": now} for user in users]
            self._post(client, rng, events)
            time.sleep(rng.uniform(0.0, 0.03))

    def _read(self) -> None:
        rng, client = random.Random(f"{self._seed}-read"), Client(self._url)
        newest: dict[tuple[str, str], tuple[int, int]] = {}
        while not self._stop.is_set():
            user, start = rng.choice(USERS), time.monotonic()
            status, row = client.ask("GET", f"/v1/features/{user}")
            if status == 200:
                self.books.reads += 1
                right = (
                    self._behind(row["release"], start, time.monotonic()) == 0.0
                    and row["release"].endswith(row["model_version"])
                    and row["quantizer_version"] == f"q-{row['model_version']}"
                )
                self.books.wrong_reads += not (right and row["user"] == user)
                mark = newest.get((user, row["release"]), (0, 0))
                found = (row["feature_version"], row["events_seen"])
                self.books.regressions += found[0] < mark[0] or found[1] < mark[1]
                newest[user, row["release"]] = found
            if not self._world.real:
                status, answer = client.ask("POST", "/v1/recommend", {"user": user, "k": 1})
                if status == 200:  # the first item of the stand-in's list is the version of its release
                    self.books.reads += 1
                    self.books.wrong_reads += not answer["release"].endswith(answer["items"][0]["item"])
            elif rng.random() < 0.2:
                exact = all((user, release) in newest for release in self._releases)
                rng.choice((self.readers.list_of, self.readers.ranking_of))(user, exact=exact)
            time.sleep(0.003)

    def _shop(self) -> None:
        while not self._stop.wait(0.02):
            self.shoppers.step()

    def _behind(self, release: str, start: float, end: float) -> float:
        """Return for how many seconds before ``start`` a release had certainly been inactive; 0.0 if it may have been
        active between ``start`` and ``end``."""
        with self.books.lock:
            switches = list(self.books.switches)
        begun = [place for place, (first, _, _) in enumerate(switches) if first <= end]
        finished = max(place for place, (_, last, _) in enumerate(switches) if last <= start)
        if release in {switches[place][2] for place in begun if place >= finished}:
            return 0.0
        ends = [after[1] for before, after in pairwise(switches) if before[2] == release and after[1] <= start]
        return start - max(ends, default=float("-inf"))

    def _switch(self) -> None:
        client, number, rng = Client(self._url), 0, random.Random(f"{self._seed}-switch")
        while not self._stop.wait(rng.uniform(0.3, 5.0)):
            number += 1
            name, first = self._releases[number % 2], time.monotonic()
            with self.books.lock:
                self.books.switches.append((first, float("inf"), name))
            asked = {"release": name, "force": rng.random() < 0.5}  # force: activate even an unprepared release
            while client.ask("POST", "/v1/admin/releases:activate", asked)[0] != 200:
                time.sleep(0.05)
            with self.books.lock:
                self.books.switches[-1] = (first, time.monotonic(), name)
