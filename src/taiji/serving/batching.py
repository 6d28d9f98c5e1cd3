"""Micro-batching: combine the calls of many requests into one.

While one call runs in its thread, arriving requests wait and form the next call. Under load, one store round trip, or
one transaction with a sync to disk, thus replaces dozens. By default, a request that arrives while no call runs starts
one at once. If calls have a high fixed cost, the next one can wait briefly for more requests (``linger``), because
clients that were answered together often call again together. No work is done for a caller that has disconnected, or
has waited so long that the response would be useless.
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
    """Too many calls are waiting already.

    Args:
        seconds: seconds after which a call is likely to be accepted.
    """

    def __init__(self, seconds: float = 1.0) -> None:
        super().__init__()
        self.seconds = seconds


class Batcher(Generic[A, B]):
    """Runner of ``work(arguments) -> results`` (one result per argument, in order) in its own thread.

    Args:
        work: the blocking function; its exceptions are raised in every caller of that batch, unless ``apart``.
        size: largest number of arguments in one call.
        waiting: largest number of waiting arguments; further callers get :class:`Overloaded`.
        apart: True to retry each argument alone after a failure, so that one bad argument does not affect the others.
        patience_s: longest waiting time of an argument; after it, the caller gets :class:`Overloaded`.
        told: callback that gets the number of arguments of a call and its duration in seconds.
        linger: longest time for which the next call waits for more arguments, as a share of the time of the last call.
            The wait ends early once the number of waiting arguments reaches the number that the last call processed
            plus the number that it left waiting (at most ``size``).
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
        """Return the result for one argument.

        Raises:
            Overloaded: too many arguments are waiting, or this one has waited for longer than ``patience_s``.
        """
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
        """Take the next arguments whose callers are still waiting."""
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
        except BaseException as error:  # the thread was closed; without a result, the callers would wait for ever
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
        """Finish the running call, then stop."""
        self._thread.shutdown(wait=True)
