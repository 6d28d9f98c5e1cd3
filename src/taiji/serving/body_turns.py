"""Limit on the number of large request bodies that are processed at the same time.

Hundreds of large bodies may arrive at the same time, but only a limited number is processed at a time. Requests that
have waited for too long are also rejected only a few at a time. Small requests, in particular health probes, therefore
never wait long for the event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from taiji.serving.batching import Overloaded

INSIDE = 64
"""Number of large bodies processed at a time: enough to read one while others are stored."""
REFUSED = 16
"""Largest number of requests rejected in one iteration of the event loop."""
PAUSE_S = 0.001
Place = tuple[asyncio.Future[None], float]


class BodyTurns:
    """Queue of the requests with large bodies in one process.

    Args:
        patience_s: longest waiting time of a request, in seconds; after it, the request is rejected.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._inside = 0
        self._waiting: dict[str, deque[Place]] = {}
        self._timer: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def turn(self, key: str) -> AsyncIterator[None]:
        """Wait for a turn, and hold it while the block runs.

        Turns rotate over the API keys, so that no key has to wait for a flood of requests with another key.

        Raises:
            Overloaded: the waiting time was too long.
        """
        if self._inside < INSIDE:
            self._inside += 1
        else:
            await self._wait(key)
        try:
            yield
        finally:
            self._leave()

    async def _wait(self, key: str) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, deque()).append((future, time.monotonic() + self._patience_s))
        self._watch(self._patience_s)
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():  # pass on the turn that this request just got
                self._leave()
            raise

    def _leave(self) -> None:
        """Pass the turn to the longest-waiting request of the next API key; if no request is waiting, free the turn."""
        now = time.monotonic()
        for key, places in list(self._waiting.items()):
            while places and places[0][0].done():  # the waiting client has disconnected
                places.popleft()
            if places and places[0][1] > now:
                del self._waiting[key]
                future, _ = places.popleft()
                if places:
                    self._waiting[key] = places  # behind the other keys
                future.set_result(None)
                return
            if not places:
                del self._waiting[key]
        self._inside -= 1

    def _watch(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._refuse)

    def _refuse(self) -> None:
        """Reject some requests that have waited for too long; schedule the next round if any are still waiting."""
        self._timer, now, refused = None, time.monotonic(), 0
        for key, places in list(self._waiting.items()):
            while places and (places[0][0].done() or places[0][1] <= now) and refused < REFUSED:
                future, _ = places.popleft()
                if not future.done():
                    future.set_exception(Overloaded())
                    refused += 1
            if not places:
                del self._waiting[key]
        if self._waiting:
            first = min(places[0][1] for places in self._waiting.values())
            self._watch(max(PAUSE_S, first - now))
