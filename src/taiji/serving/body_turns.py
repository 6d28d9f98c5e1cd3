"""Turns of requests with large bodies.

Hundreds of large bodies may arrive at the same time. What is done about them is done for a few at a time, and so is refusing those that
have waited for too long, so that the event loop never has much to do before it comes to a small request, above all a probe.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from taiji.serving.batching import Overloaded

INSIDE = 64
"""Requests with large bodies that are worked on at a time: enough that reading one and storing others go on side by side."""
REFUSED = 16
"""Requests that are refused in one round of the event loop, at most."""
PAUSE_S = 0.001
Place = tuple[asyncio.Future[None], float]


class BodyTurns:
    """Turns of one process.

    Args:
        patience_s: a request that has waited for longer is refused.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._inside = 0
        self._waiting: dict[str, deque[Place]] = {}
        self._timer: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def turn(self, key: str) -> AsyncIterator[None]:
        """Wait for a turn and have it while the block runs. Keys take turns, so that none waits for another one's flood.

        Raises:
            Overloaded: there was no turn in time.
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
            if future.done() and not future.cancelled():  # it had been given a turn that nobody will use
                self._leave()
            raise

    def _leave(self) -> None:
        """Pass the turn on to the request that has waited the longest, of the key that has waited the longest for one."""
        now = time.monotonic()
        for key, places in list(self._waiting.items()):
            while places and places[0][0].done():  # whoever waited has gone
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
        """Refuse some of those that have waited for too long, and look again when there are more."""
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
