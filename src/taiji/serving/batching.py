"""Calls of many requests become one call of the store.

While one call is under way in its thread, the requests that arrive wait and go together into the next. Under load this
makes one round trip, or one transaction with one sync to disk, out of dozens; a lone request waits for nobody. Callers that were answered
together often ask again together: where a call has a high fixed cost, the next one can wait for them for a moment. Nothing is done for
a caller that has gone, or has waited for so long that nobody would wait for the answer.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

A = TypeVar("A")
B = TypeVar("B")


class Overloaded(Exception):
    """Too many calls wait already.

    Args:
        seconds: from now, until there should be room.
    """

    def __init__(self, seconds: float = 1.0) -> None:
        super().__init__()
        self.seconds = seconds


class Batcher(Generic[A, B]):
    """Runs ``work(arguments) -> results`` (one a argument, in order) in a thread of its own.

    Args:
        work: the blocking function; what it raises is raised to every caller of that batch, unless ``apart``.
        size: arguments in one call, at most.
        waiting: arguments that may wait; beyond, :class:`Overloaded`.
        apart: True asks again with each argument alone after a failure, so that a bad one costs nobody else an answer.
        patience_s: an argument that has waited for longer is not worked on; its caller gets :class:`Overloaded`.
        told: told how many arguments a call had and how many seconds it took.
        linger: share of the time of a call for which the next one waits for as many arguments as were answered and are waiting.
    """

    def __init__(
        self,
        work: Callable[[Sequence[A]], Sequence[B]],
        size: int,
        waiting: int,
        *,
        apart: bool = False,
        patience_s: float = float("inf"),
        told: Callable[[int, float], object] = lambda number, seconds: None,
        linger: float = 0.0,
    ) -> None:
        self._work, self._size, self._waiting, self._apart = work, size, waiting, apart
        self._patience_s, self._told, self._linger = patience_s, told, linger
        self._seconds, self._expected = 0.0, 1
        self._lingering: asyncio.TimerHandle | None = None
        self._pending: deque[tuple[A, asyncio.Future[B], float]] = deque()
        self._thread = ThreadPoolExecutor(1)
        self._running = False

    async def __call__(self, argument: A) -> B:
        """The result for one argument."""
        if len(self._pending) >= self._waiting:
            raise Overloaded
        now = time.monotonic()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[B] = loop.create_future()
        self._pending.append((argument, future, now + self._patience_s))
        if not self._running and (self._lingering is None or len(self._pending) >= self._expected):
            self._start(loop)
        return await future

    def _next(self) -> list[tuple[A, asyncio.Future[B]]]:
        """Take the next arguments for which somebody still waits."""
        batch: list[tuple[A, asyncio.Future[B]]] = []
        now = time.monotonic()
        while self._pending and len(batch) < self._size:
            argument, future, latest = self._pending.popleft()
            if future.done():  # the caller gave up
                continue
            if now > latest:
                future.set_exception(Overloaded())
            else:
                batch.append((argument, future))
        return batch

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        batch = self._next()
        self._running = bool(batch)
        if not batch:
            return
        try:
            job = loop.run_in_executor(self._thread, self._answers, [argument for argument, _ in batch])
        except BaseException as error:  # the thread was closed: nobody may wait for it for ever
            self._running = False
            for _, future in batch:
                future.set_exception(Overloaded() if isinstance(error, RuntimeError) else error)
            return
        job.add_done_callback(lambda done: self._finish(loop, batch, done))

    def _answers(self, arguments: list[A]) -> list[B | Exception]:
        """Return the result or the error of each argument."""
        try:
            start = time.perf_counter()
            found = list(self._work(arguments))
            self._seconds = time.perf_counter() - start
            self._told(len(arguments), self._seconds)
            if len(found) != len(arguments):
                raise RuntimeError(f"{len(found)} results of {len(arguments)} arguments")
            return [*found]
        except Exception as error:
            if self._apart and len(arguments) > 1:
                return [answer for argument in arguments for answer in self._answers([argument])]
            return [error] * len(arguments)

    def _finish(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: list[tuple[A, asyncio.Future[B]]],
        done: asyncio.Future[list[B | Exception]],
    ) -> None:
        failed = Overloaded() if done.cancelled() else done.exception()
        answers: Sequence[B | BaseException] = [failed] * len(batch) if failed else done.result()
        for (_, future), answer in zip(batch, answers):
            if future.done():  # the caller gave up
                continue
            if isinstance(answer, BaseException):
                future.set_exception(answer)
            else:
                future.set_result(answer)
        self._running, self._expected = False, min(self._size, len(batch) + len(self._pending))
        if self._linger and len(self._pending) < self._expected > 1:
            self._lingering = loop.call_later(self._linger * self._seconds, self._start, loop)
        elif self._pending:
            self._start(loop)

    def close(self) -> None:
        """Let the call under way end."""
        self._thread.shutdown(wait=True)
