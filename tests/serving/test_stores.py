"""Which store is opened, and whether it is the one that it was."""

from __future__ import annotations

import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from tests.serving.rig import RedisServer

from taiji.config import load_config
from taiji.core.errors import ConfigError, ResourceError
from taiji.serving.redis_store import RedisStore
from taiji.serving.settings import ServingSettings
from taiji.serving.sqlite_store import SQLiteStore
from taiji.serving.store import Store, StoreUnavailable, StoreUnusable
from taiji.serving.stores import demand_same_store, open_store, place_of
from taiji.serving.types import Event, EventBatch, FeatureRow, Release

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
    with pytest.raises(StoreUnavailable, match="not the one that the process opened"):
        store.check()
    again = open_store(settings)  # a child that starts anew must not take the empty one for its own
    with pytest.raises(ResourceError, match="replaced"):
        open_store(settings, generation=store.generation)
    with pytest.raises(ResourceError, match="emptied or replaced"):
        demand_same_store(note, place, again.generation)
    again.close()


def test_no_step_works_on_a_redis_that_was_emptied_under_a_running_service(redis_server: RedisServer) -> None:
    """A service that went on would answer that nobody is erased, and take new releases and users into a store of
    nobody's."""
    settings = ServingSettings(store=redis_server.url)
    store = open_store(settings)
    assert isinstance(store, RedisStore)
    release = Release("r", "run", "m", "q")
    row = FeatureRow("u", 1, (1,), None, (), "m", "q", 1, 0)
    steps: dict[str, tuple[object, ...]] = {
        "check": (), "queue_age": (1,), "clock_floor": (), "append": ([BATCH], 1), "absorb": ("w", 9, 1), "claim": ("r", "w", 9, 1, 9),
        "commit": ("r", [], [], 1), "fail": ("r", [], "why", 1), "abandon": ("r", "w", 1), "read": (["u"],), "histories": (["u"], 1),
        "releases": (), "add_release": (release, 1), "publish": ("r", [row], 1), "activate": ("r",), "retire": ("r",), "roll_back": (),
        "waiting": ("r", 1), "beat": ("p", {}, 1), "beats": (1,), "last_beats": (), "dead_letters": (), "retry": (1,), "erase": ("u", 1),
        "scrub": (), "suppressed": (["u"],), "count": (), "counters": (), "gauges": (1,), "repair_clock": (1,),
    }  # fmt: skip
    assert {name for name in vars(Store) if not name.startswith("_")} - {"keyed", "close"} == set(steps)
    before, others = store.generation, []
    try:
        for filled in (False, True):
            store._redis.flushall()
            if filled:  # by another service that was started after the loss
                others.append(open_store(settings))
                others[-1].append([EventBatch("k2", "d", BATCH.events)], 1)
            state = {key: store._redis.dump(key) for key in store._redis.scan_iter()}
            for name, arguments in steps.items():
                with pytest.raises(StoreUnusable, match="not the one that the process opened"):
                    getattr(store, name)(*arguments)
            assert {key: store._redis.dump(key) for key in store._redis.scan_iter()} == state
    finally:
        for opened in (store, *others):
            opened.close()
    assert others[0].generation != before


@pytest.mark.parametrize(
    ("name", "worse", "sound"),
    [
        ("appendonly", "no", "yes"),
        ("appendfsync", "no", "everysec"),
        ("maxmemory-policy", "allkeys-lru", "noeviction"),
    ],
)
def test_a_redis_that_stops_keeping_events_under_a_running_service_gets_none(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, name: str, worse: str, sound: str
) -> None:
    monkeypatch.setattr("taiji.serving.redis_server.DURABLE_S", 0.0)
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
            with pytest.raises(StoreUnusable, match=f"would lose events.*{name} {worse}"):
                step()
    finally:
        store._redis.config_set(name, sound)
    store.check()
    assert store.append([BATCH], 3) == ["duplicate"]
    store.close()


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_a_file_that_is_taken_from_a_running_service_gets_no_more_events(
    make_store: Callable[..., Store], tmp_path: Path, how: str
) -> None:
    """A connection would go on writing into the file that has no name any more, and acknowledge what nobody can read
    again."""
    store = make_store()
    if not isinstance(store, SQLiteStore):
        pytest.skip("it is a file's fault")
    assert store.append([BATCH], 1) == ["accepted"]
    place = tmp_path / "store.sqlite3"
    if how == "deleted":
        place.unlink()
    else:
        shutil.copy(place, tmp_path / "copy")
        (tmp_path / "copy").rename(place)
    again = EventBatch("k2", "d", (Event("e2", "u", "i", 6),))
    for step in (store.check, lambda: store.append([again], 2), lambda: store.read(["u"]), lambda: store.erase("u", 2)):
        with pytest.raises(StoreUnusable, match="not the one that the process opened"):
            step()
    assert place.exists() == (how == "replaced"), "nobody made a new one in its place"


def test_a_file_that_goes_while_a_change_is_made_is_noticed_before_the_answer(
    make_store: Callable[..., Store], tmp_path: Path
) -> None:
    store = make_store()
    if not isinstance(store, SQLiteStore):
        pytest.skip("it is a file's fault")
    with pytest.raises(StoreUnavailable), store._change():
        (tmp_path / "store.sqlite3").unlink()


SECRETS = ["redis://:hush@host", "redis://user:hush@host:1/0", "redis://host/0?password=hush", "redis://:hu@sh/x@host"]


@pytest.mark.parametrize("place", SECRETS)
def test_a_password_in_a_setting_is_refused_wherever_it_is_set(place: str, tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(f"serving: {{store: '{place}'}}")
    for read in (
        lambda: ServingSettings(store=place),
        lambda: load_config(overrides=[f"serving.store={place}"]),
        lambda: load_config(tmp_path / "my.yaml"),
    ):
        with pytest.raises(ConfigError, match="TAIJI_STORE_PASSWORD") as refused:
            read()
        assert "hu" not in str(refused.value)


def test_the_place_of_a_store_tells_no_user_and_no_options() -> None:
    assert place_of(ServingSettings(store="redis://user@host:1/0"), None) == "redis://…@host:1/0taiji:"
    assert place_of(ServingSettings(store="redis://host:1/0?protocol=3"), None) == "redis://host:1/0?…taiji:"


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


class Interrupted:
    """A step of a store that fails once, when it goes through the keys of users or rows."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 1
        if isinstance(store, RedisStore):
            whole = store._scan

            def scan(*parts: str) -> object:
                if self.left:
                    self.left = 0
                    raise StoreUnavailable("away")
                return whole(*parts)

            monkeypatch.setattr(store, "_scan", scan)


def test_an_interrupted_release_and_retirement_are_completed_when_repeated(
    make_store: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store()
    old, new = Release("old", "run", "m", "q"), Release("new", "run", "m", "q")
    store.add_release(old, 1)
    assert store.append([BATCH], 1) == ["accepted"] and store.absorb("w", 9, 1) == 1
    Interrupted(store, monkeypatch)
    for _ in range(2):
        with suppress(StoreUnavailable):
            store.add_release(new, 1)
    assert [claim.history.user for claim in store.claim("new", "w", 9, 10**12, 9)] == ["u"]
    store.activate("new")
    row = FeatureRow("v", 1, (1,), None, ("before",), "m", "q", 1, 0)
    assert store.publish("old", [row], 1) == 1
    Interrupted(store, monkeypatch)
    done = []
    for _ in range(2):
        try:
            store.retire("old")
            done.append("retired")
        except (StoreUnavailable, KeyError) as error:
            done.append(type(error).__name__)
    assert done[-1] == "retired" or done == ["retired", "KeyError"]
    store.add_release(old, 2)
    assert store.publish("old", [row], 1) == 1, "no row of before is left"
