"""Erased data leaves the store's files, also if the process that erased it was stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from taiji.serving import scrubbing
from taiji.serving.scrubbing import WANTED, Scrubbing
from taiji.serving.store import Store, StoreUnavailable


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(scrubbing, "SCRUB_EVERY_S", 0.02)
    return []


def watched(store: Store, passes: list[str], monkeypatch: pytest.MonkeyPatch, failures: int = 0) -> Store:
    whole, left = store.scrub, [failures]

    def scrub() -> None:
        if left[0]:
            left[0] -= 1
            raise StoreUnavailable("away")
        whole()
        passes.append("made")

    monkeypatch.setattr(store, "scrub", scrub)
    return store


async def lived(made: Scrubbing, seconds: float = 0.3, erases: bool = False) -> None:
    task = asyncio.create_task(made.run())
    await asyncio.sleep(0.1)
    if erases:
        await asyncio.to_thread(made.want)
        made.soon()
    await asyncio.sleep(seconds)
    task.cancel()


def test_what_a_killed_process_left_is_done_by_the_next_one(
    make_store: Callable[..., Store], passes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = watched(make_store(), passes, monkeypatch, failures=1)
    asyncio.run(lived(Scrubbing(store)))
    assert not passes, "nothing was erased"
    Scrubbing(store).want()  # and killed before a pass
    asyncio.run(lived(Scrubbing(store)))
    assert passes and store.counters()[WANTED] == 0
    done = len(passes)
    asyncio.run(lived(Scrubbing(store)))
    assert len(passes) == done


def test_an_erasure_is_followed_by_a_pass_whatever_other_processes_counted(
    make_store: Callable[..., Store], passes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = watched(make_store(), passes, monkeypatch)
    store.count(**{WANTED: -1})
    asyncio.run(lived(Scrubbing(store), erases=True))
    assert passes == ["made"] and store.counters()[WANTED] == 0


def test_a_stop_makes_the_last_pass(
    make_store: Callable[..., Store], passes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Scrubbing(watched(make_store(), passes, monkeypatch))
    assert not made.once()
    made.want()
    assert made.once() and not made.once() and passes == ["made"]
