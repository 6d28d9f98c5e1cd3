"""Stores of other versions: an older one is brought up to date with what is in it, a newer one is told."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from tests.serving.rig import RedisServer

from taiji.core.errors import ArtifactError
from taiji.serving.redis_store import RedisStore
from taiji.serving.settings import ServingSettings
from taiji.serving.sqlite_store import SQLiteStore
from taiji.serving.store import LEAST_READER, SCHEMA, Store, keyed_digest
from taiji.serving.stores import open_store
from taiji.serving.types import Event, EventBatch, Release

VERSION_1 = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS idempotency (key TEXT PRIMARY KEY, digest TEXT, at INTEGER) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS idempotency_at ON idempotency (at);
CREATE TABLE IF NOT EXISTS queue (id INTEGER PRIMARY KEY AUTOINCREMENT, user TEXT, event BLOB, at INTEGER);
CREATE INDEX IF NOT EXISTS queue_user ON queue (user);
CREATE TABLE IF NOT EXISTS unreadable (id INTEGER PRIMARY KEY, user TEXT, event BLOB, at INTEGER, reason TEXT);
CREATE TABLE IF NOT EXISTS users (user TEXT PRIMARY KEY, seen INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS history (user TEXT, time INTEGER, id TEXT, event BLOB, PRIMARY KEY (user, time, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS features (release TEXT, user TEXT, version INTEGER, seen INTEGER, neighbour TEXT, head BLOB, tail BLOB,
    PRIMARY KEY (user, release));
CREATE INDEX IF NOT EXISTS features_neighbour ON features (neighbour) WHERE neighbour IS NOT NULL;
CREATE TABLE IF NOT EXISTS work (release TEXT, user TEXT, due INTEGER, lease INTEGER, token TEXT, worker TEXT,
    attempts INTEGER NOT NULL DEFAULT 0, reason TEXT, PRIMARY KEY (user, release)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS work_due ON work (release, due) WHERE due IS NOT NULL;
CREATE INDEX IF NOT EXISTS work_lease ON work (release, lease) WHERE lease IS NOT NULL;
CREATE INDEX IF NOT EXISTS work_dead ON work (release) WHERE reason IS NOT NULL;
CREATE TABLE IF NOT EXISTS releases (name TEXT PRIMARY KEY, body TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS erased (digest TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER) WITHOUT ROWID;
"""


def test_a_store_of_the_first_version_goes_on_and_the_first_version_goes_on_with_it(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite3"
    event, release = Event("e1", "u1", "i", 5), Release("r", "/run", "m", "q")
    with sqlite3.connect(path) as db:
        db.executescript("PRAGMA journal_mode = WAL;" + VERSION_1)
        db.execute("INSERT INTO meta VALUES ('secret', ?)", (b"s" * 32,))
        db.execute("INSERT INTO queue (user, event, at) VALUES ('u1', ?, 1)", (event.pack(),))
        db.execute("INSERT INTO releases VALUES ('r', ?)", (release.pack(),))
        db.execute("INSERT INTO work (release, user, due) VALUES ('r', 'u2', 1)")
    db.close()
    store = SQLiteStore(path, ServingSettings.model_validate({"trigger": {"window_s": 0.0}}))
    assert store.append([EventBatch("k", "d", (event._replace(id="e2"),), "shop")], 2) == ["accepted"]
    with sqlite3.connect(path) as old:  # a process of the version before, which has not been stopped yet
        old.execute("INSERT INTO queue (user, event, at) VALUES ('u1', ?, 3)", (event._replace(id="e3").pack(),))
    old.close()
    assert store.absorb("w", 10, 4) == 3
    assert [claim.history.user for claim in store.claim("r", "w", 5, 4, 10)] == ["u2", "u1"]
    assert store.histories(["u1"], 5)[0].seen == 3
    store.close()
    SQLiteStore(path, ServingSettings()).close()
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone() == (SCHEMA,)
    db.close()


def test_a_redis_of_the_first_version_goes_on_and_the_first_version_goes_on_with_it(redis_server: RedisServer) -> None:
    old, event, release = (
        redis.Redis.from_url(redis_server.url),
        Event("e1", "u1", "i", 5),
        Release("r", "/run", "m", "q"),
    )

    def append(event: Event) -> None:
        old.xadd("taiji:queue", {"u": event.user, "t": str(event.time), "e": event.pack()})

    old.flushall()
    old.xgroup_create("taiji:queue", "workers", id="0", mkstream=True)
    old.hset("taiji:meta", mapping={"secret": b"s" * 32, "active": "r"})
    old.hset("taiji:releases", "r", release.pack())
    old.sadd("taiji:names", "r")
    old.set("taiji:idem:k", "d", px=60_000)  # the batch whose acknowledgement its client has not seen yet
    append(event)
    old.zadd("taiji:h:u2", {event._replace(id="e0", user="u2").pack(): 5})
    old.hset("taiji:u:u2", "seen", 1)
    old.zadd("taiji:due:r", {"u2": 1})
    settings = {"store": redis_server.url, "trigger": {"window_s": 0.0}}
    store = open_store(ServingSettings.model_validate(settings))
    again, new = EventBatch("n", "keyed", (event,), "shop", ("k", "d")), event._replace(id="e2")
    assert store.append([again, EventBatch("k2", "d", (new,), "shop")], 2) == ["duplicate", "accepted"]
    append(event._replace(id="e3"))  # a process of the version before, which has not been stopped yet
    assert store.absorb("w", 10, 4) == 3
    assert [claim.history.user for claim in store.claim("r", "w", 5, 4, 10)] == ["u2", "u1"]
    assert [history.seen for history in store.histories(["u1", "u2"], 5)] == [3, 1]
    assert store.releases().active == "r" and store.keyed(b"x") == keyed_digest(b"x", b"s" * 32)
    assert meta(store) == {"schema": SCHEMA, "schema_reader": LEAST_READER}
    store.close()


def meta(store: Store, **values: int) -> dict[str, int]:
    """Set entries of the store's own table; returns the numbers that are in it."""
    if isinstance(store, RedisStore):
        if values:
            store._redis.hset(store._key("meta"), mapping=values)
        return {name: int(store._redis.hget(store._key("meta"), name)) for name in ("schema", "schema_reader")}
    assert isinstance(store, SQLiteStore)
    with store._change() as db:
        for name, value in values.items():
            db.execute("UPDATE meta SET value = ? WHERE key = ?", (value, name))
        return dict(db.execute("SELECT key, value FROM meta WHERE key LIKE 'schema%'"))


def test_a_store_of_a_version_that_this_one_cannot_use_is_told(
    store_url: str, make_store: Callable[..., Store]
) -> None:
    meta(make_store(), schema=SCHEMA + 2, schema_reader=SCHEMA + 1)
    with pytest.raises(ArtifactError, match="newer version"):
        open_store(ServingSettings(store=store_url))


def test_a_newer_store_that_this_version_can_use_keeps_its_number(
    store_url: str, make_store: Callable[..., Store]
) -> None:
    store = make_store()
    meta(store, schema=SCHEMA + 2)
    open_store(ServingSettings(store=store_url)).close()
    assert meta(store)["schema"] == SCHEMA + 2
