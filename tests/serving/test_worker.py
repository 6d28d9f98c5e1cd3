"""The worker against a real store, with a writer whose answers are known."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import polars as pl
import pytest
from tests.serving.doubles import EchoWriter, echo_ids
from tests.serving.rig import plant

from taiji.features.feature_table import join_features
from taiji.serving import worker as module
from taiji.serving.settings import ServingSettings
from taiji.serving.store import Store, StoreUnavailable
from taiji.serving.types import Claim, Event, EventBatch, FeatureRow, Release, UserHistory
from taiji.serving.worker import BROKEN, HUNG, Worker

SECTIONS = {
    "trigger": {"window_s": 0.0, "staleness_s": 0.0},
    "worker": {"attempts": 2, "backoff_s": 0.0, "poll_s": 0.005, "breaker": 100, "timeout_s": 5.0},
}
RELEASE = Release("r", "/run", "echo-1", "q-echo-1")
NUMBER = itertools.count()


@pytest.fixture
def store(make_store: Callable[..., Store]) -> Iterator[Store]:
    store = make_store(**SECTIONS)
    store.add_release(RELEASE, 1)
    yield store


def make(store: Store, writer: EchoWriter, clock: Callable[[], int] | None = None, **worker: object) -> Worker:
    settings = ServingSettings.model_validate({**SECTIONS, "worker": {**SECTIONS["worker"], **worker}})
    return Worker(store, writer, RELEASE, settings, "w-0", clock, die=lambda code: dead.append(code))


dead: list[int] = []


@pytest.fixture(autouse=True)
def alive() -> None:
    dead.clear()


def send(store: Store, *users: str) -> None:
    store.append(
        [EventBatch(f"key{next(NUMBER)}", "d", tuple(Event(f"e{next(NUMBER)}", user, "i", 5) for user in users))], 10
    )


def seen(store: Store, user: str) -> int | None:
    (row,) = store.read([user])
    return None if row is None else json.loads(row.body())["events_seen"]


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def test_bursts_become_one_row_and_users_one_batch(store: Store) -> None:
    send(store, "u1", "u2", "u1")
    send(store, "u1", "u3")
    writer = EchoWriter()
    worker = make(store, writer)
    assert worker.absorb() and not worker.absorb()
    assert worker.step() and not worker.step()
    assert sorted(writer.calls[0]) == ["u1", "u2", "u3"] and len(writer.calls) == 1
    assert [seen(store, user) for user in ("u1", "u2", "u3")] == [3, 1, 1]
    (row,) = store.read(["u1"])
    assert row is not None and row.version == 1
    ids = [event.id for event in store.histories(["u1"], 100)[0].events]
    assert tuple(json.loads(row.body())["ids"]) == echo_ids("echo-1", ids)
    assert store.counters() == {"rows": 3, "rows_discarded": 0, "prompt_tokens": 300, "completion_tokens": 60}


def test_the_offline_join_gives_what_the_service_answered(store: Store) -> None:
    """A slow writer: a request meets the row that had been stored by then, not the one that was only under way."""
    now = [100]
    worker = make(store, SlowWriter(now), clock=lambda: now[0])
    written, answered = [], []
    for turn in range(6):
        send(store, "u1", *(["u2"] if turn % 2 else []))
        worker.absorb()
        asked_before = list(store.read(["u1", "u2"]))
        began = now[0] + 1  # while the writer works; nothing has been stored yet
        while worker.step():
            pass
        answered += [(user, began, row) for user, row in zip(("u1", "u2"), asked_before, strict=True)]
        now[0] += 1
        for user, row in zip(("u1", "u2"), store.read(["u1", "u2"]), strict=True):
            answered.append((user, now[0], row))
            if row is not None:
                written.append((user, row))
    rows = {(user, row.version): (user, json.loads(row.body())) for user, row in written}
    table = pl.DataFrame(
        {
            "user": [int(user[1]) for user, _ in rows.values()],
            "as_of": [row["as_of"] for _, row in rows.values()],
            "available_at": [row["generated_at"] for _, row in rows.values()],
            "ids": [row["ids"] for _, row in rows.values()],
        },
        schema_overrides={"user": pl.UInt32},
    )
    assert (table["available_at"] - table["as_of"] >= 50).all(), "the time of writing, not the one of the claim"
    exposures = pl.DataFrame(
        {"user": [int(user[1]) for user, _, _ in answered], "time": [time for _, time, _ in answered]}
    )
    joined = join_features(exposures.with_columns(pl.col("user").cast(pl.UInt32)), table, ("ids",))
    assert joined["ids"].to_list() == [row and json.loads(row.body())["ids"] for _, _, row in answered]
    assert any(row is None for _, _, row in answered)


class SlowWriter(EchoWriter):
    """Takes 50 microseconds of the clock."""

    def __init__(self, now: list[int]) -> None:
        super().__init__()
        self.now = now

    def write(self, users: Sequence[UserHistory]) -> list[FeatureRow]:
        self.now[0] += 50
        return super().write(users)


def test_one_bad_history_costs_nobody_else_anything(store: Store) -> None:
    send(store, "u1", "poison", "u2")
    writer = EchoWriter()
    worker = make(store, writer)
    worker.absorb()
    until(lambda: not worker.step() and bool(store.dead_letters()))
    assert [seen(store, user) for user in ("u1", "u2", "poison")] == [1, 1, None]
    (letter,) = store.dead_letters()
    assert (letter.user, letter.attempts) == ("poison", 2) and letter.reason.startswith("ValueError at doubles.py:")
    assert writer.calls[-1] == ["poison"]  # it ran alone the second time
    assert store.counters()["failures"] == 2


def test_rows_of_the_wrong_version_or_user_are_not_stored(store: Store) -> None:
    class Wrong(EchoWriter):
        def write(self, users: Sequence[UserHistory]) -> list[FeatureRow]:
            return EchoWriter("echo-2").write(users)

    send(store, "u1")
    worker = make(store, Wrong())
    worker.absorb()
    until(lambda: not worker.step() and bool(store.dead_letters()))
    assert seen(store, "u1") is None and "versions" in store.dead_letters()[0].reason


def test_a_hanging_llm_ends_the_process_and_costs_its_users_one_attempt(store: Store) -> None:
    send(store, "u1", "u2")
    worker = make(store, EchoWriter(seconds=0.5), timeout_s=0.05)
    worker.absorb()
    worker.step()
    assert dead == [HUNG]
    assert seen(store, "u1") is None  # what came too late lost its lease
    fresh = make(store, EchoWriter())
    while fresh.step():
        pass
    assert seen(store, "u1") == 1


def test_while_everything_fails_the_worker_only_probes(store: Store) -> None:
    class Broken(EchoWriter):
        def write(self, users: Sequence[UserHistory]) -> list[FeatureRow]:
            self.calls.append([user.user for user in users])
            raise RuntimeError("down")

    send(store, *(f"u{i}" for i in range(9)))
    writer = Broken()
    worker = make(store, writer, batch=3, breaker=1)
    worker.absorb()
    worker.step()
    first = len(writer.calls)
    worker.step()
    assert first == 4 and len(writer.calls) == 5  # a batch and its three users, then one
    worker._writer = EchoWriter()
    worker.step()
    assert worker._failed_batches == 0


def test_the_stores_absence_is_waited_out_and_the_llms_work_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    send(store, "u1")
    writer = EchoWriter()
    worker = make(store, writer)
    worker.absorb()
    real, failures = store.commit, iter([True, True, False])

    def commit(*arguments: object) -> list[bool]:
        if next(failures):
            raise StoreUnavailable("restarting")
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "commit", commit)
    worker.step()
    assert seen(store, "u1") == 1 and len(writer.calls) == 1


def test_a_claim_whose_answer_was_lost_is_given_back_at_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    send(store, "u1")
    worker = make(store, EchoWriter())
    worker.absorb()
    real, lost = store.claim, iter([True, False])

    def claim(*arguments: object) -> list[Claim]:
        found = real(*arguments)  # type: ignore[arg-type]
        if next(lost):
            raise StoreUnavailable("the connection broke after the server had acted")
        return found

    monkeypatch.setattr(store, "claim", claim)
    with pytest.raises(StoreUnavailable):
        worker.step()
    assert store.gauges(100).leased == 1
    assert worker.step() and seen(store, "u1") == 1


def test_running_and_stopping_in_order(store: Store) -> None:
    worker = make(store, EchoWriter())
    thread = threading.Thread(target=worker.run)
    thread.start()
    for user in ("u1", "u2", "u3"):
        send(store, user)
    until(lambda: all(seen(store, user) == 1 for user in ("u1", "u2", "u3")))
    worker.stop()
    thread.join(5)
    assert not thread.is_alive() and dead == []


def test_a_stop_during_a_long_batch_gives_its_users_back_uncounted(store: Store) -> None:
    send(store, "u1")
    worker = make(store, EchoWriter(seconds=1.0), grace_s=0.05)
    worker.absorb()
    thread = threading.Thread(target=worker.step)
    thread.start()
    until(lambda: bool(worker._held))
    worker.stop()
    until(lambda: dead == [0])
    (claim,) = claims(store)
    assert claim.attempts == 0
    thread.join()


def claims(store: Store) -> list[Claim]:
    return store.claim("r", "other", 5, 10**18, 10)


def test_a_new_life_gives_back_what_the_old_one_held(store: Store) -> None:
    send(store, "u1")
    old = make(store, EchoWriter())
    old.absorb()
    assert store.claim("r", "w-0", 5, 10**17, 10**15)  # claimed, then killed
    worker = make(store, EchoWriter())
    thread = threading.Thread(target=worker.run)
    thread.start()
    until(lambda: seen(store, "u1") == 1)
    worker.stop()
    thread.join(5)


def test_an_unreadable_event_does_not_stop_the_absorbing(store: Store) -> None:
    worker = make(store, EchoWriter())
    thread = threading.Thread(target=worker.run)
    thread.start()
    plant(store, b'["k","u1","i",5,1,null,null,"a newer version\'s field"]')
    send(store, "u1")
    until(lambda: seen(store, "u1") == 1)
    worker.stop()
    thread.join(5)
    assert [letter.release for letter in store.dead_letters()] == [""] and dead == []


@pytest.mark.parametrize("error", [KeyError("x"), MemoryError(), SystemExit(1)], ids=lambda error: type(error).__name__)
def test_an_absorbing_thread_that_fails_ends_the_process(
    store: Store, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def broken(*_: object) -> int:
        raise error

    monkeypatch.setattr(store, "absorb", broken)
    worker = make(store, EchoWriter())
    thread = threading.Thread(target=worker.run)
    thread.start()
    until(lambda: dead == [BROKEN])
    worker.stop()
    thread.join(5)


def test_a_hanging_llm_ends_the_process_even_if_the_store_is_broken_too(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("no such thing")

    send(store, "u1")
    worker = make(store, EchoWriter(seconds=0.5), timeout_s=0.05)
    worker.absorb()
    monkeypatch.setattr(store, "fail", broken)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    worker.step()
    assert dead == [HUNG]


def test_a_worker_of_a_release_without_features_takes_events_in_alone(store: Store) -> None:
    release = Release("lists", "/run", "cascade-1", "")
    store.add_release(release, 1)
    worker = Worker(store, None, release, ServingSettings.model_validate(SECTIONS), "w-lists")
    thread = threading.Thread(target=worker.run)
    thread.start()
    send(store, "u1")
    until(lambda: bool(store.histories(["u1"], 10)[0].events))
    worker.stopping.set()
    thread.join()
    assert not worker.step() and store.claim("lists", "w-lists", 10, 10**12, 1) == []
