"""Store in Redis, for any number of API and worker machines.

Events are a stream with a consumer group, features are hashes, and every step is one Lua script (``redis_scripts``).
The server must be Redis 7 (or Valkey) with an append-only file and without eviction. All keys of a script must be on
one primary. To use several primaries, run a separate store for each shard of users (docs/serving.md).
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import redis

from taiji.core.errors import ResourceError
from taiji.serving import redis_scripts as lua
from taiji.serving.redis_entries import age_of, dead_letters, entries_of, unread
from taiji.serving.redis_server import Durability, connected, translated
from taiji.serving.settings import ServingSettings, without_password
from taiji.serving.store import (
    ALIVE_S,
    BURST,
    FORGET_US,
    LEAST_READER,
    REPLACED,
    SCHEMA,
    Appended,
    DeadLetter,
    Gauges,
    Releases,
    StoreUnavailable,
    StoreUnusable,
    as_of,
    demand_readable,
    digest_of,
    keyed_digest,
    latest_due,
    next_due,
    paces,
    readable,
    readable_releases,
)
from taiji.serving.types import Claim, EventBatch, FeatureRow, Release, StoredRow, UserHistory

CONSUMER_GROUP = "workers"
ORPHANED_MS = 60_000
"""Milliseconds after which events that another worker has claimed but not absorbed are claimed again."""


class RedisStore:
    """See :class:`taiji.serving.store.Store`."""

    def __init__(self, url: str, settings: ServingSettings) -> None:
        self._settings, self._prefix, self._redis = settings, settings.prefix, connected(url)
        self._durability = Durability(self._redis)
        place = without_password(url)
        try:
            with translated():
                self._durability.demand(place)
                self._note_schema(place)
                self._make_group()
                self._redis.hsetnx(self._key("meta"), "secret", secrets.token_bytes(32))
                self._redis.hsetnx(self._key("meta"), "generation", secrets.token_hex(16))
                self._secret: Any = self._redis.hget(self._key("meta"), "secret")
                generation: Any = self._redis.hget(self._key("meta"), "generation")
                self.generation: str = generation.decode()
        except StoreUnavailable as error:
            raise ResourceError(
                "Could not open the store.",
                where=place,
                expected="a Redis server (7 or later)",
                found=str(error),
                fix="start redis-server with --appendonly yes",
            ) from error
        self._scripts = {
            name: self._redis.register_script(lua.PRELUDE + text)
            for name, text in vars(lua).items()
            if name.isupper() and name != "PRELUDE"
        }

    def _note_schema(self, place: str) -> None:
        found = [int(value or 1) for value in self._redis.hmget(self._key("meta"), "schema", "schema_reader")]
        demand_readable(found[0], found[1], place)
        noted = {"schema": max(found[0], SCHEMA), "schema_reader": max(found[1], LEAST_READER)}
        self._redis.hset(self._key("meta"), mapping=noted)

    def _make_group(self) -> None:
        try:
            self._redis.xgroup_create(self._key("queue"), CONSUMER_GROUP, id="0", mkstream=True)
        except redis.ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    def _key(self, *parts: str) -> str:
        return self._prefix + ":".join(parts)

    def _run(self, script: str, *arguments: Any, client: Any = None) -> Any:
        return self._scripts[script](keys=[self.generation], args=[self._prefix, *arguments], client=client)

    def _replies(self, pipe: Any) -> list[Any]:
        """Execute a transaction of plain commands, and return their replies.

        Raises:
            StoreUnusable: the store has been emptied or replaced since it was opened.
        """
        pipe.hget(self._key("meta"), "generation")
        *replies, generation = pipe.execute()
        if generation != self.generation.encode():
            raise StoreUnusable(REPLACED)
        return replies

    def _window(self) -> int:
        return int(self._settings.trigger.window_s * 1e6)

    def _failing(self) -> tuple[int, float]:
        return self._settings.worker.attempts, self._settings.worker.backoff_s * 1e6

    def keyed(self, data: bytes) -> str:
        return keyed_digest(data, self._secret)

    def check(self) -> None:
        with translated():
            self._replies(self._redis.pipeline())
            self._durability.demand_lasting()

    def queue_age(self, now: int) -> float:
        del now  # the stream's ids carry the server's time
        with translated():
            pipe = self._redis.pipeline()
            pipe.xrange(self._key("queue"), count=1)
            pipe.time()
            return age_of(*self._replies(pipe))

    def clock_floor(self) -> int:
        with translated():
            (found,) = self._replies(self._redis.pipeline().get(self._key("clock")))
        return int(found or 0)

    def repair_clock(self, now: int) -> int:
        repaired, latest = 0, latest_due(self._settings, now)
        with translated():
            for name in self._release_names():
                for users in [[], *self._scan("f", name, "")]:
                    repaired += self._run("REPAIR", now, latest, name, *users)
        return repaired

    def close(self) -> None:
        self._redis.close()

    def append(self, batches: Sequence[EventBatch], now: int) -> list[Appended]:
        del now  # the stream's ids carry the server's time
        limits, remember = self._settings.limits, int(self._settings.idempotency_s * 1000)
        with translated():
            self._durability.demand_lasting()
            pipe = self._redis.pipeline(transaction=False)
            for batch in batches:
                packed = [piece for event in batch.events for piece in (event.user, event.time, event.pack())]
                self._run(
                    "APPEND",
                    batch.key,
                    batch.digest,
                    remember,
                    limits.backlog,
                    batch.source,
                    *batch.former,
                    *packed,
                    client=pipe,
                )
            return [outcome.decode() for outcome in pipe.execute()]

    def absorb(self, consumer: str, limit: int, now: int) -> int:
        with translated():
            self._replies(self._redis.pipeline())  # check the generation before entries are marked as taken
            entries = self._pending(consumer, limit)
            if not entries:
                return 0
            pieces = [piece for number, fields in entries for piece in (number, unread(fields))]
            limits = self._settings.trigger.events, self._settings.worker.history
            return int(self._run("ABSORB", now, self._window(), *limits, *paces(self._settings), BURST, *pieces))

    def _pending(self, consumer: str, limit: int) -> list[tuple[bytes, dict[bytes, bytes]]]:
        """Return the ids and fields of at most ``limit`` entries of the queue.

        The entries are those that an earlier process of this consumer left; if there are none, new ones; and if there
        are no new ones either, those of a dead consumer.
        """
        queue = self._key("queue")
        for start in ("0", ">"):
            try:
                found = self._redis.xreadgroup(CONSUMER_GROUP, consumer, {queue: start}, count=limit)
            except redis.ResponseError as error:
                if "NOGROUP" not in str(error):
                    raise
                self._make_group()
                continue
            entries = entries_of(found)
            if entries:
                return [(entry[0], entry[1] or {}) for entry in entries]
        ids = list(self._redis.xautoclaim(queue, CONSUMER_GROUP, consumer, ORPHANED_MS, count=limit, justid=True))
        pipe = self._redis.pipeline(transaction=False)
        for number in ids:
            pipe.xrange(queue, number, number)
        return [(number, found[0][1] if found else {}) for number, found in zip(ids, pipe.execute() if ids else [])]

    def claim(self, release: str, worker: str, limit: int, now: int, lease_us: int) -> list[Claim]:
        token = secrets.token_hex(8)
        with translated():
            found = self._run("CLAIM", release, now, limit, now + lease_us, token, worker, *self._failing())
            users = [user.decode() for user, *_ in found]
            forgotten = self._suppressed(users)
        claims = []
        for user, (_, attempts, seen, packed), erased in zip(users, found, forgotten):
            claims.append(Claim(_history(user, packed, seen, erased, now), token, int(attempts)))
        return claims

    def commit(self, release: str, claims: Sequence[Claim], rows: Sequence[FeatureRow], now: int) -> list[bool]:
        pieces: list[Any] = []
        for claim, row in zip(claims, rows, strict=True):
            pieces += [
                row.user,
                claim.token,
                *self._row(row),
                next_due(self._settings, row.user, now, spread=False) or "",
            ]
        with translated():
            return [bool(stored) for stored in self._run("COMMIT", release, now, self._window(), *pieces)]

    def _row(self, row: FeatureRow) -> list[Any]:
        neighbour = row.neighbour or ""
        return [row.events_seen, neighbour, digest_of(neighbour, self._secret), row.head(), row.tail()]

    def fail(self, release: str, claims: Sequence[Claim], reason: str, now: int, *, count: bool = True) -> None:
        pairs = [piece for claim in claims for piece in (claim.history.user, claim.token)]
        with translated():
            self._run("FAIL", release, now, reason, int(count), *self._failing(), *pairs)

    def abandon(self, release: str, worker: str, now: int, *, count: bool = True) -> int:
        with translated():
            return int(self._run("ABANDON", release, now, worker, int(count), *self._failing()))

    def read(self, users: Sequence[str]) -> list[StoredRow | None]:
        with translated():
            active, *rows = self._run("READ", *users) or [None]
        if active is None:
            return [None] * len(users)
        name = active.decode()
        return [StoredRow(name, int(version), head, tail) if version else None for version, head, tail in rows]

    def histories(self, users: Sequence[str], now: int) -> list[UserHistory]:
        with translated():
            pipe = self._redis.pipeline()
            for user in users:
                pipe.zrange(self._key("h", user), 0, -1)
                pipe.hget(self._key("u", user), "seen")
            found = self._replies(pipe)
            erased = self._suppressed(users)
        return [_history(user, found[2 * i], found[2 * i + 1] or 0, erased[i], now) for i, user in enumerate(users)]

    def releases(self) -> Releases:
        with translated():
            pipe = self._redis.pipeline()
            pipe.hgetall(self._key("releases"))
            pipe.hmget(self._key("meta"), "active", "previous")
            found, names = self._replies(pipe)
        live = readable_releases((name.decode(), body) for name, body in found.items())
        active, previous = (name and name.decode() for name in names)
        return Releases(live, active, previous)

    def _release_names(self) -> list[str]:
        (found,) = self._replies(self._redis.pipeline().hkeys(self._key("releases")))
        return sorted(name.decode() for name in found)

    def add_release(self, release: Release, now: int) -> None:
        with translated():
            if self._run("ADD_RELEASE", release.name, release.pack()) or not release.features:
                return
            for users in self._scan("u:"):
                self._run("FILL", release.name, now + self._window(), paces(self._settings)[1], *users)
            self._run("FILLED", release.name)

    def _scan(self, *parts: str) -> Iterator[list[bytes]]:
        """Yield chunks of at most 1000 names of keys that start with ``parts``, without this common prefix."""
        start = self._key(":".join(parts)) if parts else self._prefix
        pattern = re.sub(r"([*?\[\]\\])", r"\\\1", start) + "*"
        chunk: list[bytes] = []
        for key in self._redis.scan_iter(match=pattern, count=1000):
            chunk.append(key[len(start.encode()) :])
            if len(chunk) == 1000:
                yield chunk
                chunk = []
        if chunk:
            yield chunk

    def publish(self, release: str, rows: Sequence[FeatureRow], now: int) -> int:
        with translated():
            pipe = self._redis.pipeline(transaction=False)
            for row in rows:
                due = next_due(self._settings, row.user, now, spread=True) or ""
                self._run(
                    "PUBLISH", release, row.user, digest_of(row.user, self._secret), *self._row(row), due, client=pipe
                )
            return sum(pipe.execute())

    def activate(self, release: str) -> None:
        with translated():
            if not self._run("ACTIVATE", release):
                raise KeyError(release)

    def roll_back(self) -> str:
        with translated():
            name = self._run("ROLL_BACK")
        if name is None:
            raise KeyError("previous")
        return str(name.decode())

    def waiting(self, release: str, now: int) -> int:
        with translated():
            pipe = self._redis.pipeline()
            pipe.zcard(self._key("lease", release))
            pipe.zcount(self._key("due", release), "-inf", now + self._window())
            return sum(self._replies(pipe))

    def beat(self, process: str, facts: Mapping[str, Any], now: int) -> None:
        with translated():
            self._run("BEAT", process, json.dumps({"at": now, "facts": facts}))

    def beats(self, now: int) -> dict[str, dict[str, Any]]:
        with translated():
            found = self._beats()
            if old := [name for name, beat in found.items() if beat["at"] < now - FORGET_US]:
                self._redis.hdel(self._key("beats"), *old)
        return {name: beat["facts"] for name, beat in found.items() if beat["at"] > now - int(ALIVE_S * 1e6)}

    def last_beats(self) -> dict[str, int]:
        with translated():
            return {name: int(beat["at"]) for name, beat in self._beats().items()}

    def _beats(self) -> dict[str, Any]:
        (found,) = self._replies(self._redis.pipeline().hgetall(self._key("beats")))
        return {name.decode(): json.loads(body) for name, body in found.items()}

    def retire(self, release: str) -> None:
        with translated():
            if not self._run("RETIRE", release):
                raise KeyError(release)
            for kind in ("f", "n"):
                start = self._key(kind, release, "").encode()
                for names in self._scan(kind, release, ""):
                    self._redis.unlink(*[start + name for name in names])
            self._redis.srem(self._key("names"), release)

    def dead_letters(self, release: str | None = None) -> list[DeadLetter]:
        with translated():
            names = [release] if release else self._release_names()
            pipe = self._redis.pipeline()
            pipe.xrange(self._key("unreadable"))
            for name in names:
                pipe.hgetall(self._key("dead", name))
            unreadable, *found = self._replies(pipe)
        return dead_letters([] if release else unreadable, zip(names, found, strict=True))

    def retry(self, now: int) -> int:
        with translated():
            return int(self._run("RETRY", now))

    def erase(self, user: str, now: int) -> int:
        with translated():
            self._replies(self._redis.pipeline())
            for stream in ("queue", "unreadable"):
                start: Any = "-"
                while entries := self._redis.xrange(self._key(stream), start, count=1000):
                    mine = [number for number, fields in entries if fields.get(b"u") == user.encode()]
                    if mine:
                        self._redis.xdel(self._key(stream), *mine)
                    start = b"(" + entries[-1][0]
            return int(self._run("ERASE", user, digest_of(user, self._secret), now + self._window()))

    def scrub(self) -> None:
        with translated():
            self._replies(self._redis.pipeline())
            for command, state in (
                ("bgrewriteaof", ("aof_rewrite_in_progress", "aof_rewrite_scheduled")),
                ("bgsave", ("rdb_bgsave_in_progress",)),
            ):
                self._idle("aof_rewrite_in_progress", "aof_rewrite_scheduled", "rdb_bgsave_in_progress")
                getattr(self._redis, command)()
                self._idle(*state)

    def _idle(self, *states: str) -> None:
        while any(self._redis.info("persistence")[state] for state in states):
            time.sleep(0.02)

    def suppressed(self, users: Sequence[str]) -> list[bool]:
        with translated():
            return self._suppressed(users)

    def _suppressed(self, users: Sequence[str]) -> list[bool]:
        if not users:
            return []
        digests = [digest_of(user, self._secret) for user in users]
        (found,) = self._replies(self._redis.pipeline().smismember(self._key("erased"), digests))
        return [bool(erased) for erased in found]

    def count(self, **amounts: int) -> None:
        with translated():
            self._run("COUNT", *[piece for pair in sorted(amounts.items()) for piece in pair])

    def counters(self) -> dict[str, int]:
        with translated():
            (found,) = self._replies(self._redis.pipeline().hgetall(self._key("counters")))
        return {name.decode(): int(value) for name, value in sorted(found.items())}

    def gauges(self, now: int) -> Gauges:
        with translated():
            names = self._release_names()
            pipe = self._redis.pipeline()
            pipe.xlen(self._key("queue"))
            pipe.xrange(self._key("queue"), count=1)
            pipe.time()
            pipe.xlen(self._key("unreadable"))
            for name in names:
                pipe.zcount(self._key("due", name), "-inf", now)
                pipe.zrange(self._key("due", name), 0, 0, withscores=True)
                pipe.zcard(self._key("lease", name))
                pipe.hlen(self._key("dead", name))
                pipe.zcount(self._key("late", name), f"({now}", "+inf")
            queued, first, clock, unreadable, *rest = self._replies(pipe)
        oldest = min([float(entry[0][1]) for entry in rest[1::5] if entry], default=float(now))
        return Gauges(
            int(queued),
            age_of(first, clock),
            sum(rest[0::5]),
            max(0.0, (now - oldest) / 1e6),
            sum(rest[2::5]),
            sum(rest[3::5]),
            int(unreadable),
            sum(rest[4::5]),
        )


def _history(user: str, packed: Sequence[bytes], seen: Any, erased: bool, now: int) -> UserHistory:
    events = readable(packed)
    return UserHistory(user, as_of(now, events[-1].time if events else None), events, int(seen), erased)
