"""Cache of recent results for repeated requests."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from threading import Lock
from typing import Generic, TypeVar

V = TypeVar("V")


class ResultCache(Generic[V]):
    """Thread-safe least-recently-used cache with expiry.

    Args:
        entries: largest number of entries.
        seconds: lifetime of an entry.
    """

    def __init__(self, entries: int, seconds: float) -> None:
        self.entries, self.seconds = entries, seconds
        self.hits = self.misses = 0
        self._held: OrderedDict[Hashable, tuple[float, V]] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable, now: float) -> V | None:
        """Return the value stored under the key less than ``seconds`` before ``now``, else None."""
        with self._lock:
            found = self._held.get(key)
            if found is None or not 0 <= now - found[0] < self.seconds:
                self._held.pop(key, None)
                self.misses += 1
                return None
            self._held.move_to_end(key)
            self.hits += 1
            return found[1]

    def put(self, key: Hashable, value: V, now: float) -> None:
        """Store a value, and evict the least recently used entry if there are too many."""
        with self._lock:
            self._held[key] = (now, value)
            self._held.move_to_end(key)
            while len(self._held) > self.entries:
                self._held.popitem(last=False)

    def clear(self) -> None:
        """Remove all entries, for example after a roll-out."""
        with self._lock:
            self._held.clear()
