"""Admission control for requests whose responses must be computed.

Under overload, a long queue would make every response late and thus useless. A request is therefore admitted only if
all admitted requests can be answered within an acceptable waiting time. Any other request is rejected at once, before
any work is done for it. The time per response is measured, so the capacity of the machine need not be configured.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from taiji.serving.batching import Overloaded

FEWEST, MOST = 4, 200
"""Smallest and largest value of :attr:`Admission.room`, regardless of the time per response."""
WEIGHT = 0.2
"""Weight of the latest batch in the moving average of the time per response."""


class Admission:
    """Admission control for one kind of request.

    Args:
        wait_s: longest acceptable waiting time for a response, in seconds.
        spare: second admission control, for requests that are rejected here but may be answered without computation;
            None if there are no such requests.
    """

    def __init__(self, wait_s: float, spare: Admission | None = None) -> None:
        self._wait_s, self._seconds, self.spare = wait_s, 0.0, spare
        self._inside: Counter[str] = Counter()

    def note(self, answers: int, seconds: float) -> None:
        """Update the average time per response with a batch of ``answers`` responses that took ``seconds``."""
        each = seconds / max(1, answers)
        self._seconds = (1 - WEIGHT) * self._seconds + WEIGHT * each if self._seconds else each

    @property
    def room(self) -> int:
        """Number of requests that can be admitted at the same time."""
        return MOST if not self._seconds else min(MOST, max(FEWEST, int(self._wait_s / self._seconds)))

    @contextmanager
    def turn(self, key: str) -> Iterator[None]:
        """Count a request of the API key ``key`` as admitted while the block runs.

        If ``room`` requests are admitted already, a request is still admitted if its key has less than an equal share
        of ``room``, and fewer than twice ``room`` requests are admitted in total. A flood of requests with one key
        therefore does not block the other keys.

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
