"""Whose features are written next: known users before invented ones, one key's flood behind the others; on both
stores."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from taiji.serving.redis_store import RedisStore
from taiji.serving.store import BURST, Store
from taiji.serving.types import Event, EventBatch, FeatureRow, Release

Make = Callable[..., Store]
NUMBER = itertools.count()


def asks(store: Store, source: str, *users: str, at: int = 0) -> None:
    """Take in an event of each user, sent with an API key."""
    number = next(NUMBER)
    events = tuple(Event(f"{source}{number}-{place}", user, "i", 5) for place, user in enumerate(users))
    store.append([EventBatch(f"{source}{number}", "d", events, source)], at)
    while store.absorb("w", 5000, at):
        pass


def test_invented_users_wait_behind_real_ones_and_are_written_when_nobody_else_is(make_store: Make) -> None:
    store = make_store(trigger={"window_s": 0.0, "staleness_s": 0.0, "strangers_per_hour": 3600.0})
    store.add_release(Release("r", "/run", "m", "q"), 1)
    store.publish("r", [FeatureRow("real", 5, (1,), None, (), "m", "q", 5, 0)], 1)
    now = 10**15
    asks(store, "flood", *(f"invented-{number:04d}" for number in range(1000)), at=now)
    asks(store, "flood", "real", at=now)  # of the same key
    asks(store, "other", "newcomer", at=now)  # a stranger of another key
    assert store.gauges(now).deferred == 1000 - BURST and store.gauges(now).due == BURST + 2
    first = {claim.history.user for claim in store.claim("r", "w", BURST + 2, now, 10**9)}
    assert {"real", "newcomer"} < first
    assert {claim.history.user for claim in store.claim("r", "w", 5, now, 10**9)} == {
        f"invented-{number:04d}" for number in range(BURST, BURST + 5)
    }  # nobody else waits, so nobody idles
    asks(store, "flood", "invented-0100", at=now)  # asking again brings nothing forward
    later = now + 10 * 10**6
    assert store.gauges(later).deferred == 1000 - BURST - 10
    everybody = {claim.history.user for _ in range(10) for claim in store.claim("r", "w", 200, later, 10**12)}
    assert len(everybody) == 1000 - BURST - 5 and store.gauges(later).deferred == 0


def test_a_flood_of_known_users_of_one_key_waits_behind_another_keys(make_store: Make) -> None:
    store = make_store(trigger={"window_s": 0.0, "staleness_s": 0.0, "known_per_hour": 3600.0})
    store.add_release(Release("r", "/run", "m", "q"), 1)
    users = [f"u{number:03d}" for number in range(200)]
    store.publish("r", [FeatureRow(user, 5, (1,), None, (), "m", "q", 5, 0) for user in users], 1)
    now = 10**15
    asks(store, "import", *users[:-1], at=now)
    asks(store, "shop", users[-1], at=now + 1)
    claimed = [claim.history.user for claim in store.claim("r", "w", BURST + 1, now + 1, 10**9)]
    assert users[-1] in claimed and len(claimed) == BURST + 1


def test_a_new_release_begins_with_the_users_that_have_features(make_store: Make) -> None:
    store = make_store(trigger={"window_s": 0.0, "staleness_s": 0.0, "strangers_per_hour": 3600.0})
    store.add_release(Release("r", "/run", "m", "q"), 1)
    now = 10**15
    store.publish("r", [FeatureRow("real", 5, (1,), None, (), "m", "q", 5, 0)], 1)
    asks(store, "flood", *(f"invented-{number:03d}" for number in range(100)), "real", at=now)
    store.add_release(Release("next", "/run", "m2", "q2"), now)
    assert [claim.history.user for claim in store.claim("next", "w", 1, now, 10**9)] == ["real"]
    store.erase("invented-050", now)
    rest = {claim.history.user for claim in store.claim("next", "w", 200, now, 10**9)}
    assert len(rest) == 99 and "invented-050" not in rest


@pytest.mark.parametrize("kind", ["h", "u", "f:r"])
def test_keys_of_another_kind_cost_nobody_else_an_event(make_store: Make, kind: str) -> None:
    store = make_store(trigger={"window_s": 0.0})
    if not isinstance(store, RedisStore):
        pytest.skip("tables have one kind")
    store.add_release(Release("r", "/run", "m", "q"), 1)
    store._redis.set(store._key(kind, "foreign"), "text")
    store.append(
        [EventBatch("k", "d", tuple(Event(f"e{n}", user, "i", 5) for n, user in enumerate(("a", "foreign", "b"))))], 1
    )
    assert store.absorb("w", 10, 1) == 3
    assert [history.seen for history in store.histories(["a", "b"], 10)] == [1, 1]
    (letter,) = store.dead_letters()
    assert letter.user == "foreign" and "wrong Redis type" in letter.reason
    assert not store._redis.exists(store._key("h", "foreign")) or kind == "h", "nothing of the event was done"
    assert store.read(["a", "foreign", "b"]) == [None] * 3
    store._redis.delete(store._key(kind, "foreign"))
    assert store.retry(2) == 1 and store.absorb("w", 10, 2) == 1 and store.histories(["foreign"], 10)[0].seen == 1
