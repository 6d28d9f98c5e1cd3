"""Two hosts of one service, in network namespaces, with a shared Redis: each is cut off for a while and comes back."""

from __future__ import annotations

import hashlib
import json
import random
import threading
import time
import uuid
from collections import Counter
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from tests.serving.doubles import echo_ids
from tests.serving.rig import Hosts, RedisServer, Service

from taiji.serving.keys import ENVIRONMENT
from taiji.serving.settings import ServingSettings

USERS = [f"user-{number:02d}" for number in range(30)]
KEY, SECRET = "shop", "s" * 40
SETTINGS = {
    "port": 8080,
    "backend": "tests.serving.doubles",
    "trigger": {"window_s": 0.05, "staleness_s": 0.0},
    "worker": {"batch": 4, "history": 100_000, "timeout_s": 2.0, "backoff_s": 0.1, "poll_s": 0.02, "grace_s": 2.0},
}


class Clients:
    """Writers that repeat a batch under its key, at whichever host answers, until one of them acknowledges it."""

    def __init__(self, urls: list[str]) -> None:
        self.urls, self.sent = urls, {user: set[str]() for user in USERS}
        self.acknowledged, self.repeats, self.errors = Counter[str](), 0, Counter[int]()
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._threads = [threading.Thread(target=self._write, args=(number,)) for number in range(3)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let every batch that is under way get its acknowledgement."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _write(self, number: int) -> None:
        rng = random.Random(number)
        with httpx.Client(headers={"Authorization": f"Bearer {SECRET}"}, timeout=1.0) as http:
            while not self._stop.is_set():
                users = rng.choices(USERS, k=rng.randint(1, 4))
                now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
                events = [
                    {"user_id": user, "item_id": f"item-{rng.randint(0, 50)}", "timestamp": now} for user in users
                ]
                key = str(uuid.UUID(int=rng.getrandbits(128)))
                while not self._sent(http, rng.choice(self.urls), events, key):
                    self.repeats += 1
                name = hashlib.sha256(f"{KEY}\0{key}".encode()).hexdigest()[:32]
                with self._lock:
                    for place, user in enumerate(users):
                        self.sent[user].add(f"{name}-{place}")
                time.sleep(rng.uniform(0.0, 0.02))

    def _sent(self, http: httpx.Client, url: str, events: list[dict[str, str]], key: str) -> bool:
        try:
            answer = http.post(f"{url}/v1/events", json={"events": events}, headers={"Idempotency-Key": key})
        except httpx.HTTPError:
            return False
        if answer.status_code == 202:
            self.acknowledged[url] += 1
        else:
            self.errors[answer.status_code] += 1
        return answer.status_code == 202


@pytest.mark.slow
def test_a_host_that_is_cut_off_and_comes_back_loses_doubles_and_turns_back_nothing(tmp_path: Path) -> None:
    if not RedisServer.installed() or not Hosts.allowed():
        pytest.skip("needs redis-server, and the right to make network namespaces")
    run = tmp_path / "one"
    run.mkdir()
    (run / "version").write_text("echo-1")
    with ExitStack() as stack:
        hosts = Hosts(["s", "a", "b"])
        stack.callback(hosts.close)
        store = RedisServer(tmp_path / "redis", "always", address=hosts.addresses["s"], prefix=hosts.on("s"))
        store.start()
        stack.callback(store.stop)
        services = {}
        for name in ("a", "b"):
            settings = ServingSettings.model_validate({**SETTINGS, "store": store.url, "host": hosts.addresses[name]})
            environment = {ENVIRONMENT: f"{KEY}:read+write:{SECRET}"}
            services[name] = Service(run, settings, environment=environment, name=name, prefix=hosts.on(name))
            services[name].start()
            stack.callback(services[name].stop)
        clients = Clients([service.url for service in services.values()])
        db = redis.Redis.from_url(store.url)
        newest: dict[str, int] = {}
        turned_back = 0
        try:
            for name, lengths in (("b", 15), ("a", 45)):
                time.sleep(1.5)
                hosts.cut(name)
                other = services["a" if name == "b" else "b"]
                before = clients.acknowledged[other.url]
                for _ in range(lengths):
                    time.sleep(0.2)
                    turned_back += regressions(db, newest)
                assert clients.acknowledged[other.url] > before, "the other host goes on"
                hosts.join(name)
                until_ready(services[name].url)
                before = clients.acknowledged[services[name].url]
                deadline = time.monotonic() + 20
                while clients.acknowledged[services[name].url] == before and time.monotonic() < deadline:
                    time.sleep(0.1)
                assert clients.acknowledged[services[name].url] > before, "the host that was cut off takes events again"
        finally:
            clients.stop()
        deadline = time.monotonic() + 60
        while (found := unsettled(db, clients)) and time.monotonic() < deadline:
            turned_back += regressions(db, newest)
            time.sleep(0.2)
        assert not found and not turned_back
        assert clients.repeats > 0, "somebody met the cut"


def until_ready(url: str) -> None:
    """Wait for a host that can be reached again."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/readyz", timeout=1.0).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"{url} is not ready again")


def rows(db: redis.Redis) -> dict[str, dict[str, Any]]:
    """Feature rows by user, as they lie in the store."""
    heads = {user: db.hget(f"taiji:f:one-echo-1:{user}", "h") for user in USERS}
    return {user: json.loads(b"{" + head + b"}") for user, head in heads.items() if isinstance(head, bytes)}


def regressions(db: redis.Redis, newest: dict[str, int]) -> int:
    """How many rows are older than they were; notes what they are now."""
    count = 0
    for user, row in rows(db).items():
        count += row["events_seen"] < newest.get(user, 0)
        newest[user] = row["events_seen"]
    return count


def unsettled(db: redis.Redis, clients: Clients) -> list[str]:
    """What the store's raw keys say otherwise than the clients' ledger."""
    found = []
    if waiting := db.xlen("taiji:queue"):
        found.append(f"{waiting} events queued")
    made = rows(db)
    for user in USERS:
        times = Counter(json.loads(packed)[0] for packed in db.zrange(f"taiji:h:{user}", 0, -1))
        seen = int(db.hget(f"taiji:u:{user}", "seen") or 0)
        if set(times) != clients.sent[user] or max(times.values(), default=0) > 1 or seen != len(times):
            found.append(f"{user}: {len(clients.sent[user])} sent, {len(times)} stored, {seen} counted")
        if times and (user not in made or tuple(made[user]["ids"]) != echo_ids("echo-1", times)):
            found.append(f"{user}: the row is not of all events")
    return found
