"""Admission of requests whose responses cost computing time.

Under overload, a long queue would make every response late and thus useless. A request is therefore admitted only if all
admitted requests can be answered within a reasonable waiting time. Any other request is rejected at once, before it has
cost any work. The time per response is measured, so the capacity of the machine need not be configured.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from taiji.serving.batching import Overloaded

FEWEST, MOST = 4, 200
"""Smallest and largest number of admitted requests, regardless of the cost of a response."""
WEIGHT = 0.2
"""Weight of the latest batch in the moving average of the time per response."""


class Admission:
    """Admission of one kind of request.

    Args:
        wait_s: longest reasonable waiting time for a response.
        spare: admission of requests that are not admitted here, but may be answered without any computation.
    """

    def __init__(self, wait_s: float, spare: Admission | None = None) -> None:
        self._wait_s, self._seconds, self.spare = wait_s, 0.0, spare
        self._inside: Counter[str] = Counter()

    def note(self, answers: int, seconds: float) -> None:
        """Update the measured time with the cost of a batch of responses."""
        each = seconds / max(1, answers)
        self._seconds = (1 - WEIGHT) * self._seconds + WEIGHT * each if self._seconds else each

    @property
    def room(self) -> int:
        """Number of requests that can be admitted at the same time."""
        return MOST if not self._seconds else min(MOST, max(FEWEST, int(self._wait_s / self._seconds)))

    @contextmanager
    def turn(self, key: str) -> Iterator[None]:
        """Admit a request while the block runs.

        If all places are taken, an API key that holds less than its share of the places is still admitted, so that the
        flood of one key does not block the others.

        Raises:
            Overloaded: too many requests are admitted already.
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
