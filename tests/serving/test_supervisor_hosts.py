"""Two hosts that share a Redis, each in a network namespace of its own; one is cut off and comes back while events
flow."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import redis
from tests.serving.doubles import echo_ids
from tests.serving.rig import RedisServer, Service

from taiji.serving.settings import ServingSettings

RELEASE, VERSION = "one-echo-1", "echo-1"
USERS = [f"user-{number:02d}" for number in range(40)]
SECRET = "s" * 24
SETTINGS = {
    "port": 8080,
    "backend": "tests.serving.doubles",
    "trigger": {"window_s": 0.05, "staleness_s": 0.0},
    "worker": {"batch": 4, "history": 100_000, "timeout_s": 1.0, "backoff_s": 0.1, "poll_s": 0.02, "grace_s": 2.0},
}


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Net:
    """Namespaces ``store``, ``east`` and ``west`` at a bridge to which this process belongs."""

    def __init__(self) -> None:
        number = os.getpid() % 60_000
        self._start, self._prefix = f"tj{number:x}", f"10.{200 + number // 256 % 50}.{number % 256}"
        self._made: list[list[str]] = []
        try:
            self._make(["link", "add", f"{self._start}b", "type", "bridge"], ["link", "del", f"{self._start}b"])
            ip("addr", "add", f"{self._prefix}.1/24", "dev", f"{self._start}b")
            ip("link", "set", f"{self._start}b", "up")
            for name in ("store", "east", "west"):
                space, port = f"{self._start}{name}", self.port(name)
                self._make(["netns", "add", space], ["netns", "del", space])
                ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", space)
                ip("link", "set", port, "master", f"{self._start}b", "up")
                ip("-n", space, "addr", "add", f"{self.address(name)}/24", "dev", "eth0")
                for device in ("lo", "eth0"):
                    ip("-n", space, "link", "set", device, "up")
        except BaseException:
            self.close()
            raise

    def _make(self, forth: list[str], back: list[str]) -> None:
        ip(*forth)
        self._made.append(back)

    def port(self, name: str) -> str:
        """The bridge's end of a host's cable."""
        return f"{self._start}{name[0]}"

    def address(self, name: str) -> str:
        """A host's address."""
        return f"{self._prefix}.{10 + ('store', 'east', 'west').index(name)}"

    def beneath(self, name: str) -> list[str]:
        """A command that runs another one on a host, under the host's own name."""
        named = f'echo {name} > /proc/sys/kernel/hostname && exec "$@"'
        return ["ip", "netns", "exec", f"{self._start}{name}", "unshare", "--uts", "sh", "-c", named, name]

    def cable(self, name: str, state: str) -> None:
        """Pull a host's cable (``down``), or put it back (``up``): neither clients nor the store reach the host."""
        ip("link", "set", self.port(name), state)

    def answers(self, name: str, verb: str) -> None:
        """Lose what the store answers to a host (``add``), or no longer (``del``): it obeys, and nobody learns of
        it."""
        ip("-n", f"{self._start}store", "route", verb, "blackhole", f"{self.address(name)}/32")

    def close(self) -> None:
        """Take everything away."""
        for words in reversed(self._made):
            subprocess.run(["ip", *words], check=False, capture_output=True)


@pytest.fixture
def net() -> Iterator[Net]:
    if os.geteuid() != 0 or not all(map(shutil.which, ("ip", "unshare"))) or not RedisServer.installed():
        pytest.skip("needs root, ip, unshare and redis-server")
    try:
        made = Net()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"network namespaces cannot be made: {error.stderr.decode().strip()}")
    yield made
    made.close()


@dataclass
class Clients:
    """Writers that repeat a batch at either host under its key until it is acknowledged, and a reader of both hosts."""

    urls: list[str]
    events: dict[str, set[str]] = field(default_factory=lambda: {user: set() for user in USERS})
    sent: int = 0
    moved: int = 0
    reads: Counter[str] = field(default_factory=Counter)
    wrong: list[object] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop, self._lock, self._end = threading.Event(), threading.Lock(), float("inf")
        self._threads = [threading.Thread(target=self._write, args=(number,)) for number in range(3)]
        self._threads.append(threading.Thread(target=self._read))
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let every batch be acknowledged first; one that is not within a minute is wrong."""
        self._end = time.monotonic() + 60
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _client(self) -> httpx.Client:
        return httpx.Client(timeout=2.0, headers={"Authorization": f"Bearer {SECRET}"})

    def _write(self, number: int) -> None:
        rng, client, batch = random.Random(number), self._client(), 0
        while not self._stop.is_set():
            batch += 1
            key, users = f"{number}-{batch}", rng.choices(USERS, k=rng.randint(1, 4))
            stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            body = {"events": [{"user_id": user, "item_id": "i", "timestamp": stamp} for user in users]}
            url, answer = rng.choice(self.urls), None
            while answer is None:
                if time.monotonic() > self._end:
                    self.wrong.append(("never acknowledged", key))
                    return
                try:
                    found = client.post(f"{url}/v1/events", json=body, headers={"Idempotency-Key": key})
                    answer = found if found.status_code == 202 else None
                except httpx.HTTPError:
                    client = self._client()
                if answer is None:  # the other host: it may have been taken in already
                    url = self.urls[1 - self.urls.index(url)]
                    time.sleep(0.02)
                    self.moved += 1
            with self._lock:
                self.sent += len(users)
                for place, user in enumerate(users):
                    self.events[user].add(f"{key}-{place}")
            time.sleep(rng.uniform(0.0, 0.05))

    def _read(self) -> None:
        rng, client = random.Random("read"), self._client()
        newest: dict[str, tuple[int, int]] = {}
        while not self._stop.is_set():
            user, url = rng.choice(USERS), rng.choice(self.urls)
            try:
                answer = client.get(f"{url}/v1/features/{user}")
            except httpx.HTTPError:
                client = self._client()
                continue
            if answer.status_code == 200:
                row = answer.json()
                mark = row["feature_version"], row["events_seen"]
                before = newest.get(user, (0, 0))
                if row["user"] != user or row["release"] != RELEASE or mark[0] < before[0] or mark[1] < before[1]:
                    self.wrong.append((row, before))
                newest[user] = mark
                self.reads[url] += 1
            elif answer.status_code not in (404, 503):
                self.wrong.append((answer.status_code, answer.text))
            time.sleep(0.005)


def until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "never came about"
        time.sleep(0.1)


def fresh(store: redis.Redis) -> bool:
    """Return True if the queue is empty and every user's row is that of exactly the user's events, by the store's raw
    keys."""
    if store.xlen("taiji:queue"):
        return False
    for user in USERS:
        ids = [json.loads(packed)[0] for packed in store.zrange(f"taiji:h:{user}", 0, -1)]  # type: ignore[union-attr]
        head = store.hget(f"taiji:f:{RELEASE}:{user}", "h")
        if ids and (head is None or tuple(json.loads(b"{" + head + b"}")["ids"]) != echo_ids(VERSION, ids)):  # type: ignore[operator]
            return False
    return True


@pytest.mark.slow
def test_a_host_that_is_cut_off_and_comes_back_loses_and_doubles_nothing(
    net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAIJI_API_KEYS", f"all:read+write:{SECRET}")
    with ExitStack() as stack:
        server = RedisServer(tmp_path / "redis", host=net.address("store"), beneath=net.beneath("store"))
        stack.callback(server.stop)
        server.start()
        services = {}
        for name in ("east", "west"):
            run, temporary = tmp_path / name / "one", tmp_path / name / "tmp"
            for folder in (run, temporary):  # a host's locks are its own
                folder.mkdir(parents=True)
            (run / "version").write_text(VERSION)
            (run / "seconds").write_text("0.3")
            settings = ServingSettings.model_validate({**SETTINGS, "host": net.address(name), "store": server.url})
            services[name] = Service(run, settings, environment={"TMPDIR": str(temporary)}, beneath=net.beneath(name))
            stack.callback(services[name].stop)
            services[name].start(120)
        store, west = redis.Redis.from_url(server.url), services["west"]
        clients = Clients([service.url for service in services.values()])
        stack.callback(clients.stop)

        def leased(name: str) -> list[bytes]:
            """Users whose lease a host's worker holds."""
            held: dict[bytes, bytes] = store.hgetall(f"taiji:token:{RELEASE}")  # type: ignore[assignment]
            return [user for user, token in held.items() if token.split(b" ")[1].startswith(name.encode())]

        def ready(name: str) -> int:
            try:
                return httpx.get(f"{services[name].url}/readyz", timeout=8).status_code
            except httpx.HTTPError:
                return 0

        def working(name: str) -> bool:
            return ready(name) == 200 and [len(services[name].children(kind)) for kind in ("api", "worker")] == [1, 1]

        until(lambda: bool(leased("east") and leased("west")), 60)
        names = {name.decode() for name in store.hkeys("taiji:beats")}  # type: ignore[union-attr]
        assert {f"east-{RELEASE}-0", f"west-{RELEASE}-0"} <= names

        stranded: list[bytes] = []
        for _ in range(50):  # until it is cut off while its worker holds leases
            net.cable("west", "down")
            time.sleep(0.5)
            if stranded := leased("west"):
                break
            net.cable("west", "up")
            until(lambda: bool(leased("west")), 60)
        time.sleep(3)
        assert ready("east") == 200 and ready("west") == 0
        until(lambda: not leased("west"), 60)  # the lease has run out, and the other host has written the users
        net.cable("west", "up")
        until(lambda: working("west"), 60)
        until(lambda: bool(leased("west")), 60)

        net.answers("west", "add")
        until(lambda: ready("west") == 503, 30)
        assert httpx.get(f"{west.url}/healthz", timeout=8).status_code == 200 and ready("east") == 200
        time.sleep(3)
        net.answers("west", "del")
        until(lambda: working("west"), 60)
        until(lambda: bool(leased("west")), 60)

        before = dict(clients.reads)
        until(lambda: all(clients.reads[url] > before.get(url, 0) for url in clients.urls), 30)
        clients.stop()
        until(lambda: fresh(store), 90)
        assert stranded and clients.moved and clients.sent > 200
        assert not clients.wrong
        for user in USERS:
            found = [json.loads(packed)[0] for packed in store.zrange(f"taiji:h:{user}", 0, -1)]  # type: ignore[union-attr]
            seen = int(store.hget(f"taiji:u:{user}", "seen") or 0)  # type: ignore[arg-type]
            assert len(found) == len(set(found)) == seen == len(clients.events[user]), user
        assert not leased("east") and not leased("west")
        assert not store.hlen(f"taiji:dead:{RELEASE}")
        print(
            f"{clients.sent} events, {clients.moved} repeats, {sum(clients.reads.values())} reads, {len(stranded)} users stranded"
        )
