"""One suite for every store: what is promised in ``taiji.serving.store`` holds on SQLite and on Redis alike."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.serving.doubles import EchoWriter
from tests.serving.rig import RedisServer, plant

from taiji.core.errors import TaijiError
from taiji.serving.redis_store import RedisStore
from taiji.serving.settings import ServingSettings
from taiji.serving.sqlite_store import SQLiteStore
from taiji.serving.store import Store
from taiji.serving.stores import open_store
from taiji.serving.types import Claim, Event, EventBatch, FeatureRow, Release, Unreadable

Make = Callable[..., Store]
NOW = 1_700_000_000_000_000
SECOND = 1_000_000
R1 = Release("r1", "/runs/a", "echo-1", "q-echo-1")
R2 = Release("r2", "/runs/b", "echo-2", "q-echo-2")
QUICK = {
    "trigger": {"window_s": 2.0, "events": 3, "staleness_s": 1000.0},
    "worker": {"attempts": 3, "backoff_s": 1.0, "history": 5},
}


def batch(key: str, *events: tuple[str, str], digest: str = "d", time: int = NOW - SECOND) -> EventBatch:
    return EventBatch(
        key, digest, tuple(Event(f"{key}-{i}", user, item, time + i) for i, (user, item) in enumerate(events))
    )


def take_in(store: Store, *batches: EventBatch, now: int = NOW) -> None:
    assert store.append(batches, now) == ["accepted"] * len(batches)
    while store.absorb("w", 100, now):
        pass


def write(store: Store, claims: list[Claim], release: Release = R1, now: int = NOW) -> list[bool]:
    return store.commit(
        release.name, claims, EchoWriter(release.model_version).write([claim.history for claim in claims]), now
    )


def row(user: str, *, neighbour: str | None = None, version: str = "echo-1", seen: int = 0) -> FeatureRow:
    return FeatureRow(
        user, NOW, (1, 2), neighbour, ("i1", "i2") if neighbour else (), version, f"q-{version}", NOW, seen
    )


@pytest.fixture
def store(make_store: Make) -> Store:
    store = make_store(**QUICK)
    store.add_release(R1, NOW)
    return store


def test_an_event_becomes_a_row(store: Store) -> None:
    take_in(store, batch("k", ("u1", "i1"), ("u1", "i2"), ("u2", "i3")))
    assert store.claim("r1", "w", 10, NOW + SECOND, SECOND) == []  # the window is open
    claims = store.claim("r1", "w", 10, NOW + 2 * SECOND, SECOND)
    assert [claim.history.user for claim in claims] == ["u1", "u2"]
    assert [event.item for event in claims[0].history.events] == ["i1", "i2"]
    assert (claims[0].history.seen, claims[0].attempts, claims[0].history.forgotten) == (2, 0, False)
    assert write(store, claims) == [True, True]
    first, second, nobody = store.read(["u1", "u2", "nobody"])
    assert first is not None and second is not None and nobody is None
    body = json.loads(first.body())
    assert (
        body["release"] == "r1"
        and body["feature_version"] == 1
        and body["events_seen"] == 2
        and body["neighbour_items"] == ["i1", "i2"]
    )
    assert "neighbour" not in body  # another person's id is not served


def test_events_keep_their_values(store: Store) -> None:
    event = Event("k-0", "ü:1 \U0001f600", 'i"\\', NOW - 5, 0, 1, 2.5)
    take_in(store, EventBatch("k", "d", (event,)))
    assert store.histories([event.user], NOW)[0].events == (event,)


def test_a_key_is_taken_once(store: Store) -> None:
    first = batch("k", ("u1", "i1"))
    assert store.append([first, first], NOW) == ["accepted", "duplicate"]
    assert store.append([first], NOW) == ["duplicate"]
    assert store.append([batch("k", ("u1", "i9"), digest="other")], NOW) == ["conflict"]
    store.absorb("w", 100, NOW)
    assert store.append([first], NOW) == ["duplicate"]
    assert store.absorb("w", 100, NOW) == 0
    assert store.histories(["u1"], NOW)[0].seen == 1


def test_a_full_queue_refuses_and_recovers(make_store: Make) -> None:
    store = make_store(limits={"backlog": 3})
    assert store.append([batch("a", ("u", "1"), ("u", "2"), ("u", "3"))], NOW) == ["accepted"]
    assert store.append([batch("b", ("u", "4"))], NOW) == ["full"]
    assert store.absorb("w", 100, NOW) == 3
    assert store.append([batch("b", ("u", "4"))], NOW) == ["accepted"]


def test_a_burst_is_written_once_and_a_large_one_at_once(store: Store) -> None:
    take_in(store, batch("a", ("u1", "1")))
    take_in(store, batch("b", ("u1", "2")), now=NOW + SECOND)  # the window is not prolonged
    assert [c.history.seen for c in store.claim("r1", "w", 10, NOW + 2 * SECOND, SECOND)] == [2]
    take_in(store, batch("c", ("u2", "1"), ("u2", "2"), ("u2", "3")))
    assert [c.history.user for c in store.claim("r1", "w", 10, NOW, SECOND)] == ["u2"]


def test_the_history_keeps_the_newest_in_order_and_counts_all(store: Store) -> None:
    take_in(store, *(EventBatch(f"k{t}", "d", (Event(f"e{t}", "u", f"i{t}", t),)) for t in (5, 1, 7, 3, 6, 2, 4)))
    history = store.histories(["u"], NOW)[0]
    assert [event.time for event in history.events] == [3, 4, 5, 6, 7]
    assert history.seen == 7


def test_features_lie_strictly_after_every_event_they_saw(store: Store) -> None:
    take_in(store, batch("k", ("u", "i"), time=NOW + 60 * SECOND))  # a client whose clock runs ahead
    (claim,) = store.claim("r1", "w", 1, NOW + 2 * SECOND, SECOND)
    assert claim.history.as_of == NOW + 60 * SECOND + 1


def test_an_event_during_the_writing_makes_the_user_due_again(store: Store) -> None:
    take_in(store, batch("a", ("u", "1")))
    claims = store.claim("r1", "w", 1, NOW + 2 * SECOND, 60 * SECOND)
    take_in(store, batch("b", ("u", "2")), now=NOW + 3 * SECOND)
    assert store.claim("r1", "w2", 1, NOW + 10 * SECOND, SECOND) == []  # held
    write(store, claims, now=NOW + 10 * SECOND)
    (again,) = store.claim("r1", "w", 1, NOW + 12 * SECOND, SECOND)
    assert again.history.seen == 2
    write(store, [again], now=NOW + 12 * SECOND)
    assert store.claim("r1", "w", 1, NOW + 30 * SECOND, SECOND) == []
    (stored,) = store.read(["u"])
    assert stored is not None and stored.version == 2


def test_a_stale_row_is_written_again_without_an_event(store: Store) -> None:
    take_in(store, batch("a", ("u", "1")))
    write(store, store.claim("r1", "w", 1, NOW + 2 * SECOND, SECOND))
    assert store.claim("r1", "w", 1, NOW + 800 * SECOND, SECOND) == []
    assert len(store.claim("r1", "w", 1, NOW + 1000 * SECOND, SECOND)) == 1


def test_a_lost_lease_stores_nothing(store: Store) -> None:
    take_in(store, batch("a", ("u", "1")))
    slow = store.claim("r1", "w1", 1, NOW + 2 * SECOND, SECOND)
    fast = store.claim("r1", "w2", 1, NOW + 5 * SECOND, SECOND)
    assert fast == []  # the expired lease is a failure: back-off first
    fast = store.claim("r1", "w2", 1, NOW + 7 * SECOND, SECOND)
    assert fast[0].attempts == 1
    assert write(store, slow, now=NOW + 7 * SECOND) == [False]
    assert store.read(["u"]) == [None]
    assert write(store, fast, now=NOW + 7 * SECOND) == [True]
    assert write(store, fast, now=NOW + 7 * SECOND) == [False]  # a repetition has no second effect
    (stored,) = store.read(["u"])
    assert stored is not None and stored.version == 1


def test_failures_back_off_and_end_in_a_dead_letter(store: Store) -> None:
    take_in(store, batch("a", ("u", "1")))
    now = NOW + 2 * SECOND
    for attempt, wait in ((0, 1), (1, 2), (2, None)):
        claims = store.claim("r1", "w", 1, now, SECOND)
        assert [claim.attempts for claim in claims] == [attempt]
        store.fail("r1", claims, f"ValueError {attempt}", now)
        if wait:
            assert store.claim("r1", "w", 1, now + wait * SECOND - 1, SECOND) == []
            now += wait * SECOND
    (letter,) = store.dead_letters()
    assert (letter.release, letter.user, letter.reason, letter.attempts, letter.at) == (
        "r1",
        "u",
        "ValueError 2",
        3,
        now,
    )
    assert store.dead_letters("r1") == [letter] and store.dead_letters("r2") == []
    assert store.claim("r1", "w", 1, now + 10**12, SECOND) == [] and store.gauges(now).dead == 1
    assert store.histories(["u"], now)[0].seen == 1  # the events are not lost
    assert store.retry(now) == 1 and store.dead_letters() == []
    claims = store.claim("r1", "w", 1, now, SECOND)
    assert claims[0].attempts == 0 and write(store, claims, now=now) == [True]


def test_a_failure_that_is_not_the_users_does_not_count(store: Store) -> None:
    take_in(store, batch("a", ("u", "1")))
    for _ in range(5):
        claims = store.claim("r1", "w", 1, NOW + 2 * SECOND, SECOND)
        store.fail("r1", claims, "shutting down", NOW + 2 * SECOND, count=False)
    assert store.claim("r1", "w", 1, NOW + 2 * SECOND, SECOND)[0].attempts == 0


def test_a_new_event_gives_a_dead_letter_one_more_try(store: Store) -> None:
    take_in(store, batch("a", ("u", "1")))
    now = NOW + 2 * SECOND
    for _ in range(3):
        store.fail("r1", store.claim("r1", "w", 1, now, SECOND), "bad", now)
        now += 100 * SECOND
    take_in(store, batch("b", ("u", "2")), now=now)
    claims = store.claim("r1", "w", 1, now + 2 * SECOND, SECOND)
    assert write(store, claims, now=now) == [True] and store.dead_letters() == []


def test_a_restarted_worker_gives_back_what_it_held(store: Store) -> None:
    take_in(store, batch("a", ("u1", "1"), ("u2", "1")))
    (mine,) = store.claim("r1", "w1", 1, NOW + 2 * SECOND, 3600 * SECOND)
    (other,) = store.claim("r1", "w2", 1, NOW + 2 * SECOND, 3600 * SECOND)
    assert store.abandon("r1", "w1", NOW + 3 * SECOND) == 1
    (again,) = store.claim("r1", "w1", 5, NOW + 4 * SECOND, SECOND)
    assert again.history.user == mine.history.user and again.attempts == 1
    assert write(store, [other], now=NOW + 4 * SECOND) == [True]
    assert store.abandon("r1", "w1", NOW + 5 * SECOND, count=False) == 1
    assert store.claim("r1", "w1", 5, NOW + 6 * SECOND, SECOND)[0].attempts == 1


def test_two_workers_never_hold_one_user(store: Store) -> None:
    take_in(store, batch("a", *((f"u{i}", "1") for i in range(60))))
    held: list[str] = []
    lock = threading.Lock()

    def work(name: str) -> None:
        while claims := store.claim("r1", name, 3, NOW + 2 * SECOND, 60 * SECOND):
            with lock:
                held.extend(claim.history.user for claim in claims)

    threads = [threading.Thread(target=work, args=(f"w{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(held) == sorted(f"u{i}" for i in range(60))


def test_concurrent_intake_and_absorption_lose_and_double_nothing(store: Store) -> None:
    keys = [f"k{i}" for i in range(40)]
    done = threading.Event()

    def send(mine: list[str]) -> None:
        for key in mine:
            store.append([batch(key, (f"u{key[-1]}", "1"), (f"u{key[-1]}", "2"))], NOW)

    def absorb(name: str) -> None:
        while not done.is_set() or store.gauges(NOW).queued:
            store.absorb(name, 7, NOW)

    senders = [threading.Thread(target=send, args=(keys,)) for _ in range(3)]  # the same keys three times
    absorbers = [threading.Thread(target=absorb, args=(f"w{i}",)) for i in range(2)]
    for thread in senders + absorbers:
        thread.start()
    for thread in senders:
        thread.join()
    done.set()
    for thread in absorbers:
        thread.join()
    assert sum(history.seen for history in store.histories([f"u{i}" for i in range(10)], NOW)) == 80


def test_releases_live_side_by_side(store: Store) -> None:
    take_in(store, batch("a", ("u", "1")))
    write(store, store.claim("r1", "w", 1, NOW + 2 * SECOND, SECOND))
    store.add_release(R2, NOW)
    store.add_release(R2, NOW)
    found = store.releases()
    assert found.live == {"r1": R1, "r2": R2} and (found.active, found.previous) == ("r1", None)
    claims = store.claim("r2", "w", 5, NOW + 2 * SECOND, SECOND)  # whoever has events is due under the new one
    assert [claim.history.seen for claim in claims] == [1]
    write(store, claims, R2)
    assert _versions(store) == ["r1"]
    store.activate("r2")
    assert _versions(store) == ["r2"]
    assert store.roll_back() == "r1" and _versions(store) == ["r1"]
    assert store.roll_back() == "r1" and _versions(store) == ["r1"]  # repeated by who did not see the answer
    assert store.releases().previous == "r2"
    store.activate("r2")
    assert store.roll_back() == "r1"
    store.activate("r2")
    take_in(store, batch("b", ("u", "2")), now=NOW + 5 * SECOND)
    for name in ("r1", "r2"):
        assert len(store.claim(name, "w", 5, NOW + 7 * SECOND, SECOND)) == 1
    with pytest.raises(KeyError):
        store.activate("r3")
    with pytest.raises(KeyError):
        store.retire("r2")  # it is read
    store.retire("r1")
    assert list(store.releases().live) == ["r2"] and store.releases().previous is None
    assert store.claim("r1", "w", 5, NOW + 10**12, SECOND) == []
    with pytest.raises(KeyError):
        store.roll_back()


def _versions(store: Store) -> list[str]:
    (found,) = store.read(["u"])
    assert found is not None
    values = json.loads(found.body())
    assert {"r1": "echo-1", "r2": "echo-2"}[values["release"]] == values["model_version"]
    return [values["release"]]


def test_published_rows_are_read_and_do_not_replace_newer_ones(store: Store) -> None:
    take_in(store, batch("a", ("u1", "1")))
    write(store, store.claim("r1", "w", 1, NOW + 2 * SECOND, SECOND))
    assert store.publish("r1", [row("u1"), row("u2", neighbour="u1")], NOW) == 1
    assert store.publish("r1", [row("u1"), row("u2")], NOW) == 0
    kept, new = store.read(["u1", "u2"])
    assert kept is not None and json.loads(kept.body())["events_seen"] == 1
    assert new is not None and json.loads(new.body())["neighbour_items"] == ["i1", "i2"]
    assert store.claim("r1", "w", 10, NOW + 999 * SECOND, SECOND) != []  # stale at last


def test_a_release_published_before_it_is_live_is_due_for_later_events(store: Store) -> None:
    take_in(store, batch("a", ("u1", "1")))
    store.publish("r2", [row("u1", version="echo-2"), row("u2", version="echo-2")], NOW)
    store.add_release(R2, NOW)
    assert [claim.history.user for claim in store.claim("r2", "w", 5, NOW + 2 * SECOND, SECOND)] == ["u1"]


def test_erasure_leaves_nothing_and_rewrites_the_neighbours(store: Store) -> None:
    store.add_release(R2, NOW)
    take_in(store, batch("a", ("u1", "1"), ("u2", "1"), ("u3", "1")))
    for release in (R1, R2):
        write(store, store.claim(release.name, "w", 5, NOW + 2 * SECOND, SECOND), release)
    store.append([batch("b", ("u2", "9"), ("u3", "9"))], NOW)  # still in the queue
    assert store.erase("u2", NOW + 3 * SECOND) == 2  # u1 carries u2's items, in both releases
    store.absorb("w", 10, NOW + 3 * SECOND)
    assert store.histories(["u2"], NOW)[0].events == () and store.histories(["u2"], NOW)[0].seen == 0
    assert store.histories(["u3"], NOW)[0].seen == 2
    first, erased, third = store.read(["u1", "u2", "u3"])
    assert first is not None and erased is None and third is not None
    assert json.loads(first.body())["neighbour_items"] == [] and first.version == 2
    assert store.suppressed(["u1", "u2"]) == [False, True]
    assert [c.history.user for c in store.claim("r1", "w", 5, NOW + 5 * SECOND, SECOND)] == ["u1", "u3"]


def test_erasure_during_the_writing(store: Store) -> None:
    take_in(store, batch("a", ("u1", "1"), ("u2", "1")))
    claims = store.claim("r1", "w", 5, NOW + 2 * SECOND, 60 * SECOND)
    store.erase("u2", NOW + 3 * SECOND)
    assert write(store, claims, now=NOW + 3 * SECOND) == [True, False]  # u2 is gone; u1's neighbour is u2
    first, gone = store.read(["u1", "u2"])
    assert gone is None and first is not None and json.loads(first.body())["neighbour_items"] == []
    assert store.publish("r1", [row("u2")], NOW) == 0  # the batch run cannot bring the user back
    take_in(store, batch("b", ("u2", "new")), now=NOW + 4 * SECOND)  # but the user can come back
    (back,) = [c for c in store.claim("r1", "w", 5, NOW + 6 * SECOND, SECOND) if c.history.user == "u2"]
    assert back.history.forgotten and [event.item for event in back.history.events] == ["new"]


def test_erased_users_leave_no_bytes(store: Store, store_url: str, request: pytest.FixtureRequest) -> None:
    name, item = "canary-user-731", "canary-item-732"
    take_in(store, batch("a", (name, item), (name + "0", "x"), ("quiet", "x")))
    write(store, store.claim("r1", "w", 5, NOW + 2 * SECOND, SECOND))
    take_in(store, batch("b", (name, item)))
    store.append([batch("c", (name, item))], NOW)
    store.erase(name, NOW)
    store.erase(name + "0", NOW)
    store.scrub()
    kind, _, place = store_url.partition(":")
    folder = Path(place).parent if kind == "sqlite" else request.getfixturevalue("redis_server").folder
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert any(b"quiet" in file.read_bytes() for file in files)  # the search does find what is there
    for file in files:
        assert b"canary" not in file.read_bytes(), file.name


def test_counters_and_gauges(store: Store) -> None:
    store.count(rows=2, tokens=5)
    store.count(rows=1)
    assert store.counters() == {"rows": 3, "tokens": 5}
    store.append([batch("a", ("u", "1"))], NOW)
    found = store.gauges(NOW + 4 * SECOND)
    assert (found.queued, found.due, found.leased, found.dead) == (1, 0, 0, 0) and found.queue_age >= 0
    store.absorb("w", 5, NOW)
    found = store.gauges(NOW + 4 * SECOND)
    assert (found.queued, found.due) == (0, 1) and found.due_age == pytest.approx(2)
    store.claim("r1", "w", 5, NOW + 4 * SECOND, SECOND)
    assert store.gauges(NOW + 4 * SECOND).leased == 1


def test_the_clock_mark_never_goes_back(store: Store) -> None:
    take_in(store, batch("a", ("u", "1")))
    store.claim("r1", "w", 1, NOW + 3 * SECOND, SECOND)
    take_in(store, batch("b", ("v", "1"), time=5), now=NOW - 10**9)
    store.claim("r1", "w", 1, NOW - 10 * SECOND + 10**9, SECOND)
    assert store.clock_floor() >= NOW + 3 * SECOND


def test_what_was_acknowledged_is_there_after_reopening(store: Store, make_store: Make) -> None:
    take_in(store, batch("a", ("u", "1")))
    store.append([batch("b", ("u", "2"))], NOW)
    store.close()
    again = make_store(**QUICK)
    assert again.append([batch("b", ("u", "2"))], NOW) == ["duplicate"]
    again.absorb("w", 5, NOW)
    assert again.histories(["u"], NOW)[0].seen == 2 and again.releases().active == "r1"
    again.check()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.sampled_from(["append", "absorb", "claim", "commit", "fail", "erase", "tick"]), st.integers(0, 3)),
        max_size=40,
    )
)
def test_any_order_of_steps_keeps_the_books(store: Store, steps: list[tuple[str, int]]) -> None:
    """Model: per user, what was taken in since the last erasure; every row must have seen a number of events that once
    was true."""
    for user in range(4):
        store.erase(f"u{user}", NOW)
    now, counter, held = NOW, 0, []
    sent: dict[str, int] = dict.fromkeys((f"u{i}" for i in range(4)), 0)
    for step, number in steps:
        user = f"u{number}"
        if step == "append":
            _COUNTER[0] += 1
            counter += 1
            assert store.append([batch(f"s{_COUNTER[0]}", (user, "i"), (user, "j"))], now) == ["accepted"]
            sent[user] += 2
        elif step == "absorb":
            store.absorb("w", number + 1, now)
        elif step == "claim":
            held += store.claim("r1", f"w{number}", 2, now, 5 * SECOND)
        elif step == "commit" and held:
            write(store, [held.pop(0)], now=now)
        elif step == "fail" and held:
            store.fail("r1", [held.pop(0)], "bad", now)
        elif step == "erase":
            store.erase(user, now)
            sent[user] = 0
        now += number * SECOND
    while store.absorb("w", 100, now):
        pass
    for _ in range(12):
        now += 400 * SECOND
        store.retry(now)
        write(store, store.claim("r1", "w", 10, now, SECOND), now=now)
    for user, history, stored in zip(sent, store.histories(list(sent), now), store.read(list(sent))):
        assert history.seen == sent[user]
        if sent[user]:
            assert stored is not None and json.loads(stored.body())["events_seen"] == sent[user]


_COUNTER = [0]


def test_a_store_that_cannot_be_used_says_so(tmp_path: Path) -> None:
    for place in (f"sqlite:{tmp_path}", "redis://127.0.0.1:1/0", "floppy:a"):
        with pytest.raises(TaijiError):
            open_store(ServingSettings(store=place))
    with pytest.raises(TaijiError):
        open_store(ServingSettings())
    store = open_store(ServingSettings(), tmp_path)
    assert (tmp_path / "serving" / "serving.sqlite3").stat().st_mode & 0o777 == 0o600
    store.close()


def test_a_redis_that_would_lose_events_is_refused(redis_server: RedisServer) -> None:
    import redis

    client = redis.Redis.from_url(redis_server.url)
    client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(TaijiError, match="lose events"):
            open_store(ServingSettings(store=redis_server.url))
    finally:
        client.config_set("maxmemory-policy", "noeviction")


# What this version cannot read

UNREADABLE = {
    "newer field": b'["k","u1","i",5,1,null,null,"new"]',
    "older form": b'["k","u1","i"]',
    "object": b'{"user":"u1"}',
    "text in place of a time": b'["k","u1","i","5"]',
    "time beyond any store": b'["k","u1","i",1e400]',
    "large time": b'["k","u1","i",99999999999999999999999999]',
    "click of a third kind": b'["k","u1","i",5,2]',
    "price that is no number": b'["k","u1","i",5,1,null,NaN]',
    "another user": b'["k","u2","i",5]',
    "no JSON": b"\x00\xff\xfe",
    "nothing": b"",
}


@pytest.mark.parametrize("kind", UNREADABLE, ids=list(UNREADABLE))
def test_an_event_that_cannot_be_read_is_put_aside_and_the_work_goes_on(store: Store, kind: str) -> None:
    store.append([batch("a", ("u1", "i1"))], NOW)
    plant(store, UNREADABLE[kind])
    store.append([batch("b", ("u1", "i2"))], NOW)
    assert store.absorb("w", 100, NOW) == 3 and store.absorb("w", 100, NOW) == 0
    assert [event.item for event in store.histories(["u1"], NOW)[0].events] == ["i1", "i2"]
    (letter,) = store.dead_letters()
    assert (letter.release, letter.user, letter.attempts) == ("", "u1", 0)
    assert letter.reason.startswith("event not read: ") and "u1" not in letter.reason
    assert store.gauges(NOW).unreadable == 1 and store.gauges(NOW).queued == 0 and store.dead_letters("r1") == []
    assert store.retry(NOW) == 1 and store.dead_letters() == []  # after an upgrade it may be readable
    assert store.absorb("w", 100, NOW) == 1 and len(store.dead_letters()) == 1
    store.erase("u1", NOW)
    assert store.dead_letters() == []


def test_an_entry_of_another_form_does_not_block_the_queue(make_store: Make) -> None:
    store = make_store(**QUICK)
    if not isinstance(store, RedisStore):
        pytest.skip("rows of a table have one form")
    store._redis.xadd(store._key("queue"), {"something": "else"})
    store._redis.xadd(store._key("queue"), {"u": b"\xff", "t": "x", "e": b"[]"})
    plant(store, Event("k", "u1", "i", 5).pack(), time="not a number")
    store._redis.xadd(store._key("queue"), {"e": Event("k", "u1", "i", 5).pack(), "t": "5", "u": "u1"})
    assert store.absorb("w", 100, NOW) == 4
    assert len(store.histories(["u1"], NOW)[0].events) == 1 and len(store.dead_letters()) == 3


def test_history_of_a_newer_version_is_left_out_and_kept(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    take_in(store, batch("a", ("u1", "i1")))
    if isinstance(store, SQLiteStore):
        with store._change() as db:
            db.execute("INSERT INTO history VALUES ('u1', 9, 'new', ?)", (UNREADABLE["newer field"],))
    else:
        store._redis.zadd(store._key("h", "u1"), {UNREADABLE["newer field"]: 9})  # type: ignore[attr-defined]
    assert [event.item for event in store.histories(["u1"], NOW)[0].events] == ["i1"]
    assert [c.history.user for c in store.claim("r1", "w", 10, NOW + 5 * SECOND, SECOND)] == ["u1"]
    assert "events of a history ignored" in capsys.readouterr().err


def test_releases_of_a_newer_version_are_read_without_what_is_new_or_left_out(store: Store) -> None:
    newer = json.dumps({**json.loads(R2.pack()), "shards": 4})
    if isinstance(store, SQLiteStore):
        with store._change() as db:
            db.executemany("INSERT INTO releases VALUES (?, ?)", [("r2", newer), ("r3", "{}"), ("r4", "no JSON")])
    else:
        store._redis.hset(store._key("releases"), mapping={"r2": newer, "r3": "{}", "r4": "no JSON"})  # type: ignore[attr-defined]
    assert store.releases().live == {"r1": R1, "r2": R2}


def test_the_queue_tells_how_long_its_oldest_event_has_waited(store: Store) -> None:
    assert store.queue_age(NOW) == 0
    store.append([batch("a", ("u1", "i1"))], NOW)
    assert 0 <= store.queue_age(NOW + 3 * SECOND) <= 3
    if isinstance(store, SQLiteStore):
        assert store.queue_age(NOW + 3 * SECOND) == 3
    store.absorb("w", 100, NOW)
    assert store.queue_age(NOW) == 0


def test_a_damaged_file_is_unavailable_and_no_riddle(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    store = open_store(ServingSettings(store=f"sqlite:{path}"))
    store.close()
    path.write_bytes(path.read_bytes()[:100] + b"\xff" * 20_000)
    with pytest.raises(TaijiError, match="Could not open the store"):
        open_store(ServingSettings(store=f"sqlite:{path}"))


@given(
    st.builds(
        Event,
        st.text(max_size=5),
        st.text(max_size=5),
        st.text(max_size=5),
        st.integers(-(2**61), 2**61),
        st.integers(0, 1),
        st.none() | st.integers(0, 1),
        st.none() | st.floats(allow_nan=False, allow_infinity=False),
    )
)
def test_every_event_that_is_packed_is_read_as_it_was(event: Event) -> None:
    assert Event.unpack(event.pack()) == event


@given(
    st.binary(max_size=40)
    | st.text(max_size=40)
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps)
)
@settings(max_examples=50, deadline=None)
def test_bytes_of_any_kind_are_an_event_or_unreadable(packed: bytes | str) -> None:
    try:
        event = Event.unpack(packed)
    except Unreadable:
        return
    assert Event.unpack(event.pack()) == event


def test_a_release_without_features_makes_nobody_due(store: Store) -> None:
    take_in(store, batch("k0", ("u0", "i0")))
    store.add_release(Release("lists", "/runs/c", "cascade-1", ""), NOW)
    take_in(store, batch("k1", ("u1", "i1")))
    later = NOW + 10 * SECOND
    assert store.claim("lists", "w", 10, later, SECOND) == []
    assert {claim.history.user for claim in store.claim("r1", "w", 10, later, SECOND)} == {"u0", "u1"}
    assert store.histories(["u1"], later)[0].events[0].item == "i1"
    assert store.releases().live["lists"].features is False


def test_a_store_is_closed_when_nobody_is_in_it(tmp_path: Path) -> None:
    """SQLite dies with the process where a connection is closed while another thread runs a statement on it."""
    store = SQLiteStore(tmp_path / "store.sqlite3", settings=ServingSettings())
    inside, leave, order = threading.Event(), threading.Event(), []

    def look() -> None:
        with store._look() as db:
            inside.set()
            leave.wait(10)
            db.execute("SELECT 1 FROM meta").fetchone()
            order.append("looked")

    reader = threading.Thread(target=look)
    reader.start()
    inside.wait(10)
    closer = threading.Thread(target=lambda: (store.close(), order.append("closed")))
    closer.start()
    closer.join(0.1)
    leave.set()
    reader.join(10)
    closer.join(10)
    assert order == ["looked", "closed"]


def test_processes_say_that_they_live(store: Store) -> None:
    store.beat("api-1", {"kind": "api", "loaded": ["r1"]}, NOW)
    store.beat("api-2", {"kind": "api", "loaded": []}, NOW + 3 * SECOND)
    store.beat("api-1", {"kind": "api", "loaded": ["r1", "r2"]}, NOW + 2 * SECOND)
    assert {name: beat["loaded"] for name, beat in store.beats(NOW + 4 * SECOND).items()} == {
        "api-1": ["r1", "r2"],
        "api-2": [],
    }
    assert list(store.beats(NOW + 12 * SECOND)) == ["api-2"] and store.beats(NOW + 100_000 * SECOND) == {}


def test_a_release_tells_how_many_wait_for_it(store: Store) -> None:
    take_in(store, batch("a", ("u", "1"), ("v", "1")))
    assert store.waiting("r1", NOW) == 2
    claims = store.claim("r1", "w", 1, NOW + 2 * SECOND, SECOND)
    assert store.waiting("r1", NOW) == 2
    write(store, claims)
    assert store.waiting("r1", NOW) == 1 and store.waiting("r2", NOW) == 0


def test_a_store_written_under_a_clock_a_year_ahead_is_repaired(store: Store) -> None:
    year = 365 * 86_400 * SECOND
    take_in(store, batch("a", ("u", "1"), ("v", "1"), ("w", "1")), now=NOW + year)
    claims = store.claim("r1", "w", 2, NOW + year + 2 * SECOND, 600 * SECOND)
    write(store, claims[:1], now=NOW + year)  # one row of the future, one lease, one that is due
    assert store.clock_floor() > NOW + year and store.claim("r1", "w", 5, NOW + 10 * SECOND, SECOND) == []
    assert store.repair_clock(NOW) == 3 and store.clock_floor() <= NOW
    again = store.claim("r1", "w", 5, NOW + SECOND, SECOND)
    assert {claim.history.user for claim in again} == {"u", "v", "w"}
    assert store.repair_clock(NOW) == 3  # they are leased, and nobody lives
    assert write(store, store.claim("r1", "w", 5, NOW + SECOND, SECOND), now=NOW + SECOND) == [True] * 3
    assert store.repair_clock(NOW + 2 * SECOND) == 0
