"""Admission of requests whose answers cost computing time.

Where more is asked than can be computed, a long queue makes every answer late and none useful. A request is let in only if all that
are inside can be answered in the time that is reasonable to wait; another one is told so at once, when it has cost next to nothing.
The time of an answer is measured, so nobody has to know the capacity of a machine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from taiji.serving.batching import Overloaded

FEWEST, MOST = 4, 200
"""Requests that are let in whatever an answer costs, and at most."""
WEIGHT = 0.2
"""Share of the latest batch in the measured time of an answer."""


class Admission:
    """Admission of one kind of request.

    Args:
        wait_s: longest time to wait for an answer that is reasonable.
        spare: admission of requests for which there is no room here, but which may be answered without computing anything.
    """

    def __init__(self, wait_s: float, spare: Admission | None = None) -> None:
        self._wait_s, self._seconds, self.spare = wait_s, 0.0, spare
        self._inside: Counter[str] = Counter()

    def note(self, answers: int, seconds: float) -> None:
        """Take in what a batch of answers cost."""
        each = seconds / max(1, answers)
        self._seconds = (1 - WEIGHT) * self._seconds + WEIGHT * each if self._seconds else each

    @property
    def room(self) -> int:
        """Requests that can be inside at once."""
        return MOST if not self._seconds else min(MOST, max(FEWEST, int(self._wait_s / self._seconds)))

    @contextmanager
    def turn(self, key: str) -> Iterator[None]:
        """Be inside while the block runs.

        Where there is no room, a key that has less than its share of it is let in all the same, so that no key waits for another
        one's flood.

        Raises:
            Overloaded: too many are inside.
        """
        inside, mine = self._inside.total(), self._inside[key]
        others = len(self._inside) - (key in self._inside)
        share = self.room / (others + 1) if others else 0
        if inside >= self.room and not (mine < share and inside < 2 * self.room):
            raise Overloaded(self._seconds * inside)
        self._inside[key] += 1
        try:
            yield
        finally:
            self._inside[key] -= 1
            if not self._inside[key]:
                del self._inside[key]
