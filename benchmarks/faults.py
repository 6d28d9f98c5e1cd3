"""Does the service lose data, or give a wrong answer, if its processes, its disk, its clock or its LLM fail?

A real service is started (supervisor, API process, and a worker for each of two releases), and clients put load on it.
Writers send batches of events, and repeat a batch under its idempotency key until it is acknowledged. Readers read
feature rows. Shoppers request lists (`POST /v1/recommend`) and rankings (`POST /v1/rank`). A further client switches
the served release back and forth. The LLM is a stand-in; the recommenders of the two releases are real. At random times
a fault is injected:

- SIGKILL of the workers, of the API process or of Redis;
- a full disk;
- an LLM that raises an error or hangs;
- a clock that is set back, or set a year ahead for a while, when a process restarts;
- SIGSTOP of processes or of Redis for a while;
- hundreds of silent connections, and requests with large heads;
- unreadable entries in the queue.

After the faults, and once the service has recovered, a checker that shares no code with the service compares the tables
or keys of the store with the clients' own ledger. Every list and every ranking is recomputed with the library alone
(:mod:`benchmarks.list_faults`). Every count of errors must be 0.

Each row is one service with one list of faults: ``store`` (SQLite or Redis), ``fault``, ``times`` (number of faults),
``events`` (acknowledged), ``repeats`` (times that a batch was sent again, because it had not been acknowledged),
``reads`` (feature rows that were read), ``switches`` (of the release), and ``recovered_s``, the seconds from the end of
the load, after the last fault, until the queue is empty and all feature rows are fresh. Errors of data: ``lost
events``; ``duplicated effects`` (also wrong counts of events, and reads of an older row than before); ``wrong version``
(rows of another release or user); ``poisoned clock`` (1 if the latest time in the store is over two hours ahead);
``queued`` (events left in the queue); ``rows not fresh``. The columns about lists and rankings, and ``behind_s``, are
defined at :func:`benchmarks.list_faults.verdicts`. ``refused`` counts requests for lists and rankings that got status
503 or no response; ``other answers`` counts those with any other status than 200.

    python -m benchmarks.faults [--quick] [--json benchmarks/results/faults.json]

SQLite is always tested, and Redis if it is installed. A full disk needs the permission to mount a file system. Finished
rows are kept in ``$TAIJI_BENCHMARK_WORK/faults.jsonl``, so that a killed run resumes. Several processes can share this
folder, each with its own stores in ``TAIJI_BENCHMARK_STORES`` (such as ``sqlite``). ``TAIJI_BENCHMARK_FAULTS`` (default
1000) is the smallest number of faults of a full run.
"""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import signal
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import redis
from tests.serving.doubles import echo_ids
from tests.serving.rig import STEPPED_CLOCK, RedisServer, Service, SmallDisk

from benchmarks.fault_load import EVERYBODY, USERS, Books, Client, Load, name_of
from benchmarks.harness import Result, run
from benchmarks.list_faults import Maker, train, verdicts
from benchmarks.overload import large, silent
from benchmarks.rationale_data import work_folder
from taiji.serving import roll_out
from taiji.serving.settings import ServingSettings

log = logging.getLogger(__name__)
VERSIONS = ("echo-1", "echo-2")
"""Model versions of the two releases."""
KINDS = ("worker", "api", "redis", "disk", "raise", "hang", "clock", "ahead", "freeze", "flood", "foreign")
TITLES = {
    "worker": "SIGKILL worker",
    "api": "SIGKILL API",
    "redis": "SIGKILL Redis",
    "disk": "full disk",
    "raise": "LLM raises",
    "hang": "LLM hangs",
    "clock": "clock back",
    "ahead": "clock a year ahead",
    "freeze": "SIGSTOP",
    "flood": "silent connections, large heads",
    "foreign": "foreign entries in the queue",
}
FAULTS = int(os.environ.get("TAIJI_BENCHMARK_FAULTS", "1000"))
"""Smallest total number of faults in a full run."""
MIXED = 40
"""Number of faults in a scenario that mixes all kinds."""
SETTINGS = {
    "port": 0,
    "backend": "tests.serving.doubles",
    "trigger": {"window_s": 0.05, "staleness_s": 0.0},
    "worker": {"batch": 8, "history": 100_000, "timeout_s": 1.0, "backoff_s": 0.1, "poll_s": 0.02, "grace_s": 2.0},
    "recommend": {"policy": "never"},  # no list is shown again, because every list is compared with a recomputed one
}


class World:
    """Service with its store, and the faults that can be injected.

    Args:
        store: ``sqlite`` or ``redis``.
        folder: folder for the store and the releases.
        stack: stack that stops the service and the store at its end.
        recommenders: run of `taiji recommend` for each release; by default a stand-in makes the lists.
        small_disk: True to put the store on a small file system, which can be filled.
    """

    def __init__(
        self, store: str, folder: Path, stack: ExitStack, recommenders: Sequence[Path] = (), *, small_disk: bool = False
    ) -> None:
        self.store, self.folder, self.offset, self.real = store, folder, 0, bool(recommenders)
        self.disk = SmallDisk(folder / "disk", 128) if small_disk and SmallDisk.allowed() else None
        if self.disk:
            stack.callback(self.disk.close)
        data = self.disk.folder if self.disk else folder / "data"
        data.mkdir(exist_ok=True)
        # With everysec, a Redis that is killed while its disk is slow loses up to two seconds of acknowledged writes.
        self.redis = RedisServer(data, fsync="always") if store == "redis" else None
        if self.redis:
            self.redis.start()
            stack.callback(self.redis.stop)
        self.place = self.redis.url if self.redis else str(data / "store.sqlite3")
        runs = [folder / name for name in ("one", "two")]
        for place, (made, version) in enumerate(zip(runs, VERSIONS)):
            if recommenders:
                shutil.copytree(recommenders[place], made)
            made.mkdir(exist_ok=True)
            (made / "version").write_text(version)
        self.runs = runs
        (folder / "sitecustomize.py").write_text(STEPPED_CLOCK.format(path=str(folder / "offset")))
        (folder / "offset").write_text("0")
        settings = ServingSettings.model_validate(
            {**SETTINGS, "store": self.place if self.redis else f"sqlite:{self.place}"}
        )
        path = os.pathsep.join([str(folder), os.getcwd(), os.environ.get("PYTHONPATH", "")])
        self.service = Service(runs[0], settings, environment={"PYTHONPATH": path})
        self.service.start()
        stack.callback(self.service.stop)
        self.releases = [f"one-{VERSIONS[0]}", roll_out(runs[1], settings, activate=False).name]

    def possible(self, kind: str) -> bool:
        """Return True if a fault applies to this store and can be injected with the permissions of this process."""
        return {"redis": self.redis is not None, "disk": self.disk is not None}.get(kind, True)

    def until_answering(self, timeout: float = 30.0) -> None:
        """Wait for the API, so that every fault finds a service under load."""
        client, deadline = Client(self.service.url), time.monotonic() + timeout
        while client.ask("GET", "/readyz")[0] != 200 and time.monotonic() < deadline:
            time.sleep(0.05)

    def hit(self, kind: str, rng: random.Random) -> None:
        """Inject one fault, and remove its cause before returning, so that the service can recover."""
        getattr(self, f"_{kind}")(rng)

    def _worker(self, rng: random.Random) -> None:
        self.service.kill("worker")

    def _api(self, rng: random.Random) -> None:
        self.service.kill("api")

    def _redis(self, rng: random.Random) -> None:
        assert self.redis
        self.redis.kill()
        time.sleep(rng.uniform(0, 0.5))
        self.redis.start()

    def _disk(self, rng: random.Random) -> None:
        assert self.disk
        self.disk.fill()
        time.sleep(rng.uniform(0.2, 0.8))
        self.disk.empty()
        # With `appendfsync always`, Redis exits when the disk is full, and its supervisor would start it again.
        if self.redis and not self.redis.runs():
            self.redis.start()

    def _raise(self, rng: random.Random) -> None:
        self._fault(rng, "raise")

    def _hang(self, rng: random.Random) -> None:
        self._fault(rng, "hang")

    def _fault(self, rng: random.Random, text: str) -> None:
        path = rng.choice(self.runs) / "fault"
        path.with_suffix(".new").write_text(text)
        path.with_suffix(".new").rename(path)
        deadline = time.monotonic() + 20
        while path.exists() and time.monotonic() < deadline:  # until a worker has run into the fault
            time.sleep(0.01)

    def _clock(self, rng: random.Random) -> None:
        self.offset -= rng.randint(30, 20_000)
        (self.folder / "offset").write_text(str(self.offset))
        self.service.kill(rng.choice(("worker", "api")))

    def _ahead(self, rng: random.Random) -> None:
        (self.folder / "offset").write_text(str(self.offset + 365 * 86_400))
        self.service.kill(rng.choice(("worker", "api")))
        time.sleep(1.5)  # processes that start meanwhile have the wrong clock
        (self.folder / "offset").write_text(str(self.offset))

    def _freeze(self, rng: random.Random) -> None:
        pids = self.service.children(rng.choice(("worker", "api")))
        if self.redis and rng.random() < 0.3:
            assert self.redis._process
            pids = [self.redis._process.pid]
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            time.sleep(rng.uniform(0.2, 1.5) if number == signal.SIGSTOP else 0)

    def _flood(self, rng: random.Random) -> None:
        host, _, port = self.service.url.removeprefix("http://").rpartition(":")
        address = host, int(port)
        held = silent(address, 300)
        for _ in range(4):
            with suppress(OSError):
                large(address, 4 << 20)
        time.sleep(rng.uniform(0.1, 0.5))
        for connection in held:
            connection.close()

    def _foreign(self, rng: random.Random) -> None:
        packed = rng.choice((b"\xff\x00", b"{}", b"[1,2]", b'["x","user-001","i",1e99]'))
        if self.redis:
            client = redis.Redis.from_url(self.place)
            client.xadd("taiji:queue", rng.choice(({"u": "user-001", "t": "5", "e": packed}, {"other": packed})))  # type: ignore[arg-type]
        else:
            with sqlite3.connect(self.place, timeout=10) as db:
                db.execute("INSERT INTO queue (user, event, at) VALUES ('user-001', ?, 1)", (packed,))

    def ahead(self) -> bool:
        """Return True if the latest time in the store is more than two hours ahead of the correct time."""
        if self.redis:
            mark = int(redis.Redis.from_url(self.place).get("taiji:clock") or 0)  # type: ignore[arg-type]
        else:
            with sqlite3.connect(self.place) as db:
                mark = (db.execute("SELECT value FROM meta WHERE key = 'clock'").fetchone() or (0,))[0]
        return mark > (time.time() + 7200) * 1e6


def stored(
    world: World,
) -> tuple[Counter[str], dict[str, set[str]], dict[str, int], dict[tuple[str, str], dict[str, Any]], int]:
    """Return the content of the store, read without the code of the service.

    Returns:
        number of occurrences of each event, by its name (see :func:`name_of`); ids of the events, by user; number of
        events that the store has counted, by user; feature rows, by release and user; number of queued events.
    """
    times: Counter[str] = Counter()
    events: dict[str, set[str]] = {user: set() for user in EVERYBODY}
    seen: dict[str, int] = dict.fromkeys(EVERYBODY, 0)
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    if world.redis:
        client = redis.Redis.from_url(world.place)
        for user in EVERYBODY:
            for packed in client.zrange(f"taiji:h:{user}", 0, -1):
                times[name_of(json.loads(packed)[0])] += 1
                events[user].add(json.loads(packed)[0])
            seen[user] = int(client.hget(f"taiji:u:{user}", "seen") or 0)
            for release in world.releases:
                if head := client.hget(f"taiji:f:{release}:{user}", "h"):
                    rows[release, user] = json.loads(b"{" + head + b"}")
        return times, events, seen, rows, client.xlen("taiji:queue")
    with sqlite3.connect(world.place) as db:
        for user, packed in db.execute("SELECT user, event FROM history"):
            times[name_of(json.loads(packed)[0])] += 1
            events[user].add(json.loads(packed)[0])
        seen.update(db.execute("SELECT user, seen FROM users"))
        for release, user, head in db.execute("SELECT release, user, head FROM features"):
            rows[release, user] = json.loads(b"{" + head + b"}")
        return times, events, seen, rows, db.execute("SELECT count(*) FROM queue").fetchone()[0]


def audit(world: World, books: Books) -> dict[str, int]:
    """Compare the store with the ledger, and return the number of errors by kind."""
    times, events, seen, rows, queued = stored(world)
    ours = set().union(*books.events.values())
    arrived = {user: {name_of(event_id) for event_id in ids} for user, ids in events.items()}
    lost = sum(len(books.events[user] - arrived[user]) for user in EVERYBODY)
    doubled = (
        sum(number - 1 for number in times.values())
        + len(set(times) - ours)
        + sum(abs(seen[user] - len(events[user])) for user in USERS)
    )
    wrong = 0
    for (release, user), row in rows.items():
        version = release.split("-", 1)[1]
        wrong += (row["model_version"], row["quantizer_version"], row["user"]) != (version, f"q-{version}", user)
    stale = sum(
        (release, user) not in rows
        or rows[release, user]["events_seen"] != len(books.events[user])
        or tuple(rows[release, user]["ids"]) != echo_ids(release.split("-", 1)[1], events[user])
        for release in world.releases
        for user in EVERYBODY
        if books.events[user]
    )
    return {
        "lost events": lost,
        "duplicated effects": doubled + books.regressions,
        "wrong version": wrong + books.wrong_reads,
        "poisoned clock": int(world.ahead()),
        "queued": queued,
        "rows not fresh": stale,
    }


def scenario(store: str, kinds: list[str], seed: int, makers: Sequence[Maker] = ()) -> dict[str, Any] | None:
    """Start the service, put load on it, inject the faults one after another, wait for recovery, and audit the store.

    Return the row of results; None if none of the faults is possible.

    Args:
        store: ``sqlite`` or ``redis``.
        kinds: kinds of the faults, in order.
        seed: seed of all random draws.
        makers: makers that recompute the lists of the two releases. Without them, stand-ins make the lists, which are
            not checked.
    """
    rng = random.Random(seed)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        world = World(store, folder, stack, [maker.run for maker in makers], small_disk="disk" in kinds)
        kinds = [kind for kind in kinds if world.possible(kind)]
        if not kinds:
            return None
        load = Load(world, seed)
        try:
            for kind in kinds:
                world.until_answering()
                time.sleep(rng.uniform(0.2, 1.2))
                world.hit(kind, rng)
        finally:
            load.stop()
        start, client = time.monotonic(), Client(world.service.url)
        found = audit(world, load.books)
        while (found["queued"] or found["rows not fresh"]) and time.monotonic() < start + 60:
            client.ask(
                "POST", "/v1/admin/dead-letters:retry"
            )  # retries rows that the LLM failed to write; in operation, a person does this
            time.sleep(0.2)
            with suppress(redis.RedisError, sqlite3.OperationalError):
                found = audit(world, load.books)
        recovered_s = time.monotonic() - start
        load.settle()
        books, shoppers = load.books, (load.readers, load.shoppers)
        for trouble in [error for of in shoppers for error in of.errors]:
            log.warning("answered with %s: %s", *trouble)
        for line in world.service.log.read_text().splitlines():
            if '"request failed"' in line:  # kept, because the log is deleted with the folder
                log.warning("the service's log: %s", line)
        answers = [answer for of in shoppers for answer in of.answers]
        title = " + ".join(dict.fromkeys(TITLES[kind] for kind in kinds))
        events = sum(len(ids) for ids in books.events.values())
        return {
            "store": store,
            "fault": title,
            "times": len(kinds),
            "events": events,
            "repeats": books.repeats,
            "reads": books.reads,
            "switches": len(books.switches) - 1,
            "recovered_s": recovered_s,
            **found,
            **verdicts(answers, dict(zip(world.releases, makers))),
            "refused": sum(of.refused for of in shoppers),
            "other answers": sum(len(of.errors) for of in shoppers),
        }


COUNTS = ("lost events", "duplicated effects", "wrong version", "poisoned clock", "queued", "rows not fresh")
OF_ANSWERS = ("wrong lists", "wrong rankings", "forbidden items", "wrong release", "other answers")


def rows_of(journal: Path) -> list[dict[str, Any]]:
    """Return the finished rows of the journal, in the order of their seeds."""
    lines = journal.read_text().splitlines() if journal.exists() else []
    return sorted((json.loads(line) for line in lines), key=lambda row: int(row["seed"]))


def measure(quick: bool) -> Result:
    """Inject the faults, and check that there are no errors.

    A full run injects 20 faults of each kind per store, and then random mixes of all kinds until there are
    :data:`FAULTS` faults. A quick run injects each kind once, on Redis if it is installed, otherwise on SQLite. If both
    are tested, SQLite gets three faults: SIGKILL of the workers, a full disk, and SIGKILL of the API process.
    """
    result = Result()
    total: Callable[[str], int] = lambda name: sum(row[name] for row in result.rows)  # noqa: E731
    stores = ["sqlite", *(["redis"] if RedisServer.installed() else [])]
    own = os.environ.get("TAIJI_BENCHMARK_STORES", " ".join(stores)).split()
    with tempfile.TemporaryDirectory() as folder:
        makers = [Maker(run) for run in train(Path(folder))]
        journal = (Path(folder) if quick else work_folder()) / "faults.jsonl"
        journal.parent.mkdir(parents=True, exist_ok=True)

        def hit(store: str, kinds: list[str], seed: int) -> None:
            result.rows = rows_of(journal)
            if store not in own or seed in {row["seed"] for row in result.rows}:
                return
            row = scenario(store, kinds, seed, makers)
            if row is None:
                return
            line = json.dumps(row | {"seed": seed})
            with journal.open("a") as stream:
                stream.write(line + "\n")
            print(line, flush=True)
            result.rows = rows_of(journal)

        for store in stores:
            short = list(KINDS) if store == stores[-1] else ["worker", "disk", "api"]
            for number, kinds in enumerate([short] if quick else [[kind] * 20 for kind in KINDS]):
                hit(store, kinds, number + 100 * stores.index(store))
        seed = 1000
        while not quick and total("times") < FAULTS:
            hit(stores[seed % len(stores)], random.Random(seed).choices(KINDS, k=MIXED), seed)
            seed += 1
    for name in (*COUNTS, *OF_ANSWERS):
        result.at_most(f"{name} after {total('times')} faults", total(name), 0)
    result.at_least("events under faults", total("events"), 100)
    result.at_least(
        "lists under faults that the other release would not give", total("own lists"), 20 if quick else 1000
    )
    result.at_least(
        "rankings under faults that the other release would not give", total("own rankings"), 5 if quick else 500
    )
    return result


if __name__ == "__main__":
    run(measure)
