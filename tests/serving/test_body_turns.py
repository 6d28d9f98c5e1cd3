"""Turns of requests with large bodies: few inside, keys in turn, and refusals a few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from taiji.serving.batching import Overloaded
from taiji.serving.body_turns import INSIDE, REFUSED, BodyTurns


class Flood:
    """Requests that wait for turns; ``done`` has their keys in the order in which they had one, ``refused`` those
    without."""

    def __init__(self, patience_s: float = 60.0) -> None:
        self.turns, self.go_on = BodyTurns(patience_s), asyncio.Event()
        self.inside, self.most, self.done, self.refused = 0, 0, list[str](), list[str]()

    async def ask(self, key: str) -> None:
        try:
            async with self.turns.turn(key):
                self.inside += 1
                self.most = max(self.most, self.inside)
                try:
                    await self.go_on.wait()
                    await asyncio.sleep(0)
                    self.done.append(key)
                finally:
                    self.inside -= 1
        except Overloaded:
            self.refused.append(key)

    def tasks(self, *keys: str) -> list[asyncio.Task[None]]:
        return [asyncio.ensure_future(self.ask(key)) for key in keys]


async def rounds(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 60))


def test_few_are_inside_at_a_time_and_everybody_gets_a_turn() -> None:
    async def work() -> None:
        flood = Flood()
        tasks = flood.tasks(*["a"] * 5 * INSIDE)
        await rounds(3)
        assert flood.inside == INSIDE
        flood.go_on.set()
        await asyncio.gather(*tasks)
        assert flood.most == INSIDE and len(flood.done) == 5 * INSIDE and not flood.refused

    run(work())


def test_a_key_does_not_wait_for_the_flood_of_another_one() -> None:
    async def work() -> None:
        flood = Flood()
        tasks = [*flood.tasks(*["flood"] * 20 * INSIDE)]
        await rounds(3)
        tasks += flood.tasks("other", "other")
        flood.go_on.set()
        await asyncio.gather(*tasks)
        places = [place for place, key in enumerate(flood.done) if key == "other"]
        assert max(places) <= 3 * INSIDE, "the last of the other key comes after those that were inside, not after all"

    run(work())


def test_those_that_wait_for_too_long_are_refused_a_few_in_a_round() -> None:
    """Hundreds of clients that were sent away in one round would keep a probe waiting meanwhile, and come back
    together."""

    async def work() -> None:
        flood = Flood(patience_s=0.05)
        tasks = flood.tasks(*["a"] * (10 * REFUSED + INSIDE))
        most, before = 0, 0
        while len(flood.refused) < 10 * REFUSED:
            await asyncio.sleep(0)
            most, before = max(most, len(flood.refused) - before), len(flood.refused)
        assert most <= REFUSED and flood.inside == INSIDE
        flood.go_on.set()
        await asyncio.gather(*tasks)

    run(work())


def test_whoever_leaves_gives_the_turn_back() -> None:
    async def work() -> None:
        flood = Flood()
        first, waiting, last = flood.tasks(*["a"] * INSIDE), flood.tasks(*["a"] * 3), flood.tasks("b")
        await rounds(3)
        waiting[0].cancel()  # before it has a turn
        flood.go_on.set()
        await rounds(2)
        waiting[1].cancel()  # perhaps with a turn that it has not begun
        await asyncio.gather(*first, *waiting, *last, return_exceptions=True)
        assert flood.done.count("b") == 1 and flood.turns._inside == 0 and not flood.turns._waiting

    run(work())


def test_a_turn_given_to_somebody_who_is_cancelled_in_that_round_is_passed_on() -> None:
    async def work() -> None:
        flood = Flood()
        holders = flood.tasks(*["a"] * INSIDE)
        unlucky, next_one = flood.tasks("b", "c")
        await rounds(3)
        holders[0].cancel()
        await asyncio.sleep(0)  # it leaves: the turn is given
        unlucky.cancel()
        await rounds(4)
        assert flood.inside == INSIDE and not next_one.done()
        flood.go_on.set()
        await asyncio.gather(*holders, unlucky, next_one, return_exceptions=True)
        assert "c" in flood.done and flood.turns._inside == 0

    run(work())
