"""Which store is opened, and whether it is the one that it was."""

from __future__ import annotations

import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.serving.rig import RedisServer

from taiji.core.errors import ConfigError, ResourceError
from taiji.serving.redis_store import RedisStore
from taiji.serving.settings import ServingSettings
from taiji.serving.sqlite_store import SQLiteStore
from taiji.serving.store import Store, StoreUnavailable
from taiji.serving.stores import demand_same_store, open_store, place_of
from taiji.serving.types import Event, EventBatch

BATCH = EventBatch("k", "d", (Event("e", "u", "i", 5),))


def empty(store: Store) -> None:
    """What is left of a store that lost its files."""
    if isinstance(store, RedisStore):
        store._redis.flushall()
    else:
        assert isinstance(store, SQLiteStore)
        with store._change() as db:
            for table in ("meta", "queue", "idempotency", "erased"):
                db.execute(f"DELETE FROM {table}")


def test_a_store_that_came_back_empty_is_refused(
    store_url: str, make_store: Callable[..., Store], tmp_path: Path
) -> None:
    settings, note = ServingSettings(store=store_url), tmp_path / "serving" / "store.json"
    store, place = make_store(), place_of(ServingSettings(store=store_url), None)
    demand_same_store(note, place, store.generation)
    demand_same_store(note, place, make_store().generation)  # the next start
    store.erase("somebody", 1)
    empty(store)
    with pytest.raises(StoreUnavailable, match="another one"):
        store.check()
    if isinstance(store, RedisStore):  # a file does not empty itself under a running process
        for write in (
            lambda: store.append([BATCH], 1),
            lambda: store.commit("r", [], [], 1),
            lambda: store.erase("u", 1),
        ):
            with pytest.raises(StoreUnavailable):
                write()
    again = open_store(settings)  # a child that starts anew must not take the empty one for its own
    with pytest.raises(ResourceError, match="replaced"):
        open_store(settings, generation=store.generation)
    with pytest.raises(ResourceError, match="emptied or replaced"):
        demand_same_store(note, place, again.generation)
    again.close()


@pytest.mark.parametrize(
    ("name", "worse", "sound"), [("appendonly", "no", "yes"), ("maxmemory-policy", "allkeys-lru", "noeviction")]
)
def test_a_redis_that_stops_keeping_events_under_a_running_service_gets_none(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, name: str, worse: str, sound: str
) -> None:
    monkeypatch.setattr("taiji.serving.redis_store.DURABLE_S", 0.0)
    store = open_store(ServingSettings(store=redis_server.url))
    assert isinstance(store, RedisStore)
    store._redis.flushall()
    store.close()
    store = open_store(ServingSettings(store=redis_server.url))
    assert isinstance(store, RedisStore)
    try:
        assert store.append([BATCH], 1) == ["accepted"]
        store._redis.config_set(name, worse)
        for step in (store.check, lambda: store.append([BATCH], 2)):
            with pytest.raises(StoreUnavailable, match=f"would lose events.*{name} {worse}"):
                step()
    finally:
        store._redis.config_set(name, sound)
    store.check()
    assert store.append([BATCH], 3) == ["duplicate"]
    store.close()


def test_the_place_of_a_store_tells_no_password() -> None:
    assert place_of(ServingSettings(store="redis://user:secret@host:1/0"), None) == "redis://…@host:1/0taiji:"


def test_digests_of_bodies_depend_on_the_store(make_store: Callable[..., Store], tmp_path: Path) -> None:
    one = make_store()
    other = open_store(ServingSettings(store=f"sqlite:{tmp_path / 'other.sqlite3'}"))
    assert one.keyed(b"body") == make_store().keyed(b"body") != other.keyed(b"body")
    other.close()


def test_a_batch_that_the_version_before_took_in_is_known(make_store: Callable[..., Store]) -> None:
    store = make_store()
    assert store.append([BATCH], 1) == ["accepted"]
    new = EventBatch("new", "keyed", BATCH.events, "shop", ("k", "d"))
    assert store.append([new, EventBatch("new", "keyed", BATCH.events, "shop", ("k", "other"))], 2) == [
        "duplicate",
        "conflict",
    ]


def test_a_password_is_taken_from_the_environment_alone(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="TAIJI_STORE_PASSWORD") as refused:
        open_store(ServingSettings(store=redis_server.url.replace("//", "//:hush@")))
    assert "hush" not in str(refused.value)
    store = open_store(ServingSettings(store=redis_server.url))
    assert isinstance(store, RedisStore)
    store._redis.acl_setuser("taiji", enabled=True, passwords=["+hush"], commands=["+@all"], keys=["*"])
    mine = redis_server.url.replace("//", "//taiji@")
    monkeypatch.setenv("TAIJI_STORE_PASSWORD", "wrong")
    with pytest.raises(ResourceError, match="Could not open"):
        open_store(ServingSettings(store=mine))
    monkeypatch.setenv("TAIJI_STORE_PASSWORD", "hush")
    other = open_store(ServingSettings(store=mine))
    assert other.generation == store.generation
    store._redis.acl_deluser("taiji")
    store.close()
    other.close()


def test_a_copy_made_while_events_come_in_is_brought_back_whole(
    store_url: str, make_store: Callable[..., Store], tmp_path: Path
) -> None:
    """The steps of the guide: a copy under load, the store lost, the copy in its place, and the start that compares."""
    if store_url.startswith("redis"):
        server = RedisServer(tmp_path / "live", "always")
        server.start()
        store_url = server.url
    else:
        server = None
    settings, note = ServingSettings(store=store_url), tmp_path / "store.json"
    store, place = open_store(settings), place_of(ServingSettings(store=store_url), None)
    demand_same_store(note, place, store.generation)
    store.erase("erased", 1)
    stop, sent = threading.Event(), list[int]()

    def write() -> None:
        while not stop.is_set():
            number = len(sent)
            event = Event(f"e{number}", "u", "i", 5)
            assert store.append([EventBatch(f"k{number}", "d", (event,))], 1) == ["accepted"]
            sent.append(number)

    writer = threading.Thread(target=write)
    writer.start()
    while len(sent) < 20:
        time.sleep(0.001)
    before = len(sent)
    copied: RedisServer | None = None
    if server is None:
        path = store_url.removeprefix("sqlite:")
        source, target = sqlite3.connect(path), sqlite3.connect(tmp_path / "copy.sqlite3")
        source.backup(target)  # what `.backup` of the sqlite3 program does
        source.close()
        target.close()
    else:
        shutil.copytree(server.folder, tmp_path / "copy")
    stop.set()
    writer.join()
    store.close()
    if server is None:
        for file in Path(path).parent.glob(f"{Path(path).name}*"):
            file.unlink()
        shutil.copy(tmp_path / "copy.sqlite3", path)
    else:
        server.stop()
        copied = RedisServer(tmp_path / "copy", "always")
        copied.start()
        settings = ServingSettings(store=copied.url)
    again = open_store(settings)
    demand_same_store(note, place, again.generation)
    assert before <= again.gauges(2).queued <= len(sent) and again.suppressed(["erased"]) == [True]
    kept = again.gauges(2).queued
    repeats = [EventBatch(f"k{number}", "d", (Event(f"e{number}", "u", "i", 5),)) for number in sent]
    assert again.append(repeats, 2) == ["duplicate"] * kept + ["accepted"] * (len(sent) - kept)
    again.close()
    if copied:
        copied.stop()
