"""Removal of erased data from the store's files, soon after an erasure."""

from __future__ import annotations

import asyncio

from taiji.serving.logs import log, where
from taiji.serving.store import Store

SCRUB_EVERY_S = 5.0
"""Shortest time between two passes, in seconds; one pass can serve several erasures."""
WANTED = "scrubs_wanted"
"""Name of the store's counter of erasures whose data may still be in the store's files."""


class Scrubbing:
    """Passes that remove erased data from the store's files.

    Args:
        store: the store.
    """

    def __init__(self, store: Store) -> None:
        self._store, self._asked = store, asyncio.Event()

    def want(self) -> None:
        """Record in the store that a user has been erased; call :meth:`soon` afterwards."""
        self._store.count(**{WANTED: 1})

    def soon(self) -> None:
        """Request a pass."""
        self._asked.set()

    def once(self, *, surely: bool = False) -> bool:
        """Remove erased data from the store's files, and return whether a pass was made.

        Args:
            surely: make a pass even if the store counts no erasures since the last pass.
        """
        wanted = self._store.counters().get(WANTED, 0)
        if wanted > 0 or surely:
            self._store.scrub()
            done = min(wanted, self._store.counters().get(WANTED, 0))  # another process may have made a pass, too
            if done > 0:
                self._store.count(**{WANTED: -done})
            return True
        return False

    async def run(self) -> None:
        """Make a pass whenever requested, until cancelled.

        The first pass is made at once if the store counts erasures whose data an earlier process did not remove.
        """
        surely = False
        self._asked.set()
        while True:
            await self._asked.wait()
            self._asked.clear()
            made = True
            try:
                made = await asyncio.to_thread(self.once, surely=surely)
            except Exception as error:  # try again after any error: erased data must not stay in the files
                log("scrub postponed", error=where(error))
                self._asked.set()
            surely = True
            if made:
                await asyncio.sleep(SCRUB_EVERY_S)

    async def end(self) -> None:
        """Make the last pass if the store counts erasures; if this fails, the next process makes it when it starts."""
        try:
            await asyncio.to_thread(self.once)
        except Exception as error:
            log("scrub postponed", error=where(error))
