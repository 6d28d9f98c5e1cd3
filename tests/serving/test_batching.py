from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

import pytest

from taiji.serving.batching import Batcher, Overloaded


async def until(event: threading.Event) -> None:
    """Let the loop run until another thread has set the event."""
    while not event.is_set():
        await asyncio.sleep(0.001)


def test_what_arrives_during_a_call_goes_together_into_the_next() -> None:
    calls: list[list[int]] = []
    entered, gate = threading.Event(), threading.Event()

    def work(numbers: Sequence[int]) -> list[int]:
        calls.append(list(numbers))
        entered.set()
        gate.wait(60)
        return [number * 2 for number in numbers]

    async def main() -> list[int]:
        batcher = Batcher(work, size=3, waiting=100)
        first = asyncio.ensure_future(batcher(0))
        await until(entered)
        rest = [asyncio.ensure_future(batcher(number)) for number in range(1, 6)]
        await asyncio.sleep(0)  # each gets as far as waiting
        gate.set()
        answers = await asyncio.gather(first, *rest)
        batcher.close()
        return answers

    assert asyncio.run(main()) == [0, 2, 4, 6, 8, 10]
    assert calls == [[0], [1, 2, 3], [4, 5]]


@pytest.mark.parametrize("linger, calls", [(0.0, {1, 3}), (50.0, {4})], ids=["at once", "lingering"])
def test_those_who_were_answered_together_and_ask_again_go_together(linger: float, calls: set[int]) -> None:
    """Without waiting, whoever is first goes alone, and the others follow together."""
    sizes: list[int] = []

    def work(numbers: Sequence[int]) -> list[int]:
        sizes.append(len(numbers))
        time.sleep(0.02)
        return list(numbers)

    async def main() -> float:
        batcher = Batcher(work, size=16, waiting=100, linger=linger)

        async def client() -> None:
            for number in range(6):
                assert await batcher(number) == number

        await asyncio.gather(*(client() for _ in range(4)))
        start = time.monotonic()
        assert await batcher(1) == 1  # waits for three others, in vain
        waited = time.monotonic() - start
        start = time.monotonic()
        assert await batcher(2) == 2  # the last call had one argument
        batcher.close()
        return waited - (time.monotonic() - start)

    waited = asyncio.run(main())
    assert set(sizes[1:-3]) == calls and sizes[-2:] == [1, 1]
    assert (waited > 0.5) == (linger > 0), "a share of a call's time"


def test_an_error_reaches_those_who_asked_and_nobody_later() -> None:
    def work(numbers: Sequence[int]) -> list[int]:
        if 1 in numbers:
            raise ValueError("one")
        return list(numbers)

    async def main() -> None:
        batcher = Batcher(work, size=1, waiting=10)
        results = await asyncio.gather(*(batcher(number) for number in range(3)), return_exceptions=True)
        assert results[0] == 0 and isinstance(results[1], ValueError) and results[2] == 2
        assert await batcher(5) == 5

    asyncio.run(main())


def test_too_many_waiting_are_refused_and_who_gives_up_harms_nobody() -> None:
    entered, gate = threading.Event(), threading.Event()

    def work(numbers: Sequence[int]) -> list[int]:
        entered.set()
        gate.wait(60)
        return list(numbers)

    async def main() -> None:
        batcher = Batcher(work, size=1, waiting=1)
        running = asyncio.ensure_future(batcher(1))
        await until(entered)
        waiting = asyncio.ensure_future(batcher(2))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await batcher(3)
        running.cancel()
        gate.set()
        assert await waiting == 2

    asyncio.run(main())


def test_one_bad_request_costs_nobody_else_an_answer() -> None:
    def work(numbers: Sequence[int]) -> list[float]:
        return [1 / number for number in numbers]

    async def ask() -> list[float | BaseException]:
        batcher: Batcher[int, float] = Batcher(work, 10, 100, apart=True)
        first = asyncio.create_task(batcher(1))
        found = await asyncio.gather(first, *(batcher(n) for n in (2, 0, 4)), return_exceptions=True)
        batcher.close()
        return found

    found = asyncio.run(ask())
    assert found[:2] == [1.0, 0.5] and isinstance(found[2], ZeroDivisionError) and found[3] == 0.25


def test_a_wrong_number_of_results_and_a_closed_thread_leave_nobody_waiting() -> None:
    async def ask() -> list[float | BaseException]:
        batcher: Batcher[int, float] = Batcher(lambda numbers: [1.0], 10, 100)
        tasks = [asyncio.create_task(batcher(n)) for n in range(3)]
        found = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
        batcher.close()
        late = await asyncio.wait_for(asyncio.gather(batcher(1), return_exceptions=True), 5)
        return [*found, *late]

    found = asyncio.run(ask())
    assert found[0] == 1.0 and all(isinstance(answer, RuntimeError) for answer in found[1:3])
    assert isinstance(found[3], Overloaded)


def test_nothing_is_done_for_who_has_gone_or_waited_too_long() -> None:
    worked: list[int] = []
    costs: list[int] = []
    entered, gate = threading.Event(), threading.Event()

    def work(numbers: Sequence[int]) -> list[int]:
        worked.extend(numbers)
        entered.set()
        gate.wait(60)
        return list(numbers)

    async def main() -> list[int | BaseException]:
        batcher = Batcher(work, 10, 100, patience_s=0.05, told=lambda number, seconds: costs.append(number))
        first = asyncio.ensure_future(batcher(0))
        await until(entered)
        late = [asyncio.ensure_future(batcher(number)) for number in (1, 2)]
        await asyncio.sleep(0.1)
        gone, wanted = asyncio.ensure_future(batcher(3)), asyncio.ensure_future(batcher(4))
        await asyncio.sleep(0)
        gone.cancel()
        gate.set()
        found = await asyncio.gather(first, *late, wanted, return_exceptions=True)
        assert await batcher(5) == 5  # a queue of nobody but such does not stop the batcher
        batcher.close()
        return found

    found = asyncio.run(main())
    assert found[0] == 0 and found[3] == 4 and all(isinstance(answer, Overloaded) for answer in found[1:3])
    assert worked == [0, 4, 5] and costs == [1, 1, 1]
