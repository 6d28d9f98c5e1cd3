"""Lists that were made a moment ago, for the same question."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from threading import Lock
from typing import Generic, TypeVar

V = TypeVar("V")


class ResultCache(Generic[V]):
    """Least-recently-used cache whose entries end after some time; safe in threads.

    Args:
        entries: most that are kept. seconds: time that an entry counts.
    """

    def __init__(self, entries: int, seconds: float) -> None:
        self.entries, self.seconds = entries, seconds
        self.hits = self.misses = 0
        self._held: OrderedDict[Hashable, tuple[float, V]] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable, now: float) -> V | None:
        """Return what was put under the key less than ``seconds`` before ``now``, else None."""
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
        """Keep a value, and forget the entry that was asked for least recently where there are too many."""
        with self._lock:
            self._held[key] = (now, value)
            self._held.move_to_end(key)
            while len(self._held) > self.entries:
                self._held.popitem(last=False)

    def clear(self) -> None:
        """Forget everything, as after a roll-out."""
        with self._lock:
            self._held.clear()
