"""Policy of HTTP retries for every client of this package: which answers are worth another attempt, after which pause."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TypeVar

T = TypeVar("T")
TRANSIENT = frozenset({408, 409, 425, 429})
"""Statuses below 500 that another attempt may mend."""


class TransientError(Exception):
    """An attempt failed in a way that another may mend.

    Args:
        reason: what happened, for the message after the last attempt.
        pause: seconds that the server asks to wait.
    """

    def __init__(self, reason: str, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.pause = pause


def is_transient(status: int) -> bool:
    """Return whether an answer with this HTTP status is worth another attempt."""
    return status in TRANSIENT or status >= 500


def retry_after(value: str | None, now: float | None = None) -> float:
    """Return the seconds that a ``Retry-After`` header asks for, a number or a date; 0 for none and for nonsense.

    Args:
        value: the header.
        now: seconds since the epoch; None asks the clock.
    """
    if not value:
        return 0.0
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - (time.time() if now is None else now))
    except ValueError:
        return 0.0


@dataclass(frozen=True)
class Backoff:
    """Exponential pauses with jitter.

    Attributes:
        attempts: in all.
        first: seconds before the second attempt; doubles each time.
        longest: seconds that no pause exceeds, whatever the server asks for.
    """

    attempts: int
    first: float
    longest: float = 60.0

    def pause(self, attempt: int, asked: float = 0.0) -> float:
        """Return the seconds to wait after failed attempt number ``attempt``, counted from 1; no result depends on them."""
        most = min(self.first * 2 ** (attempt - 1), self.longest)
        return max(most * random.uniform(0.5, 1.0), min(asked, self.longest))

    def run(self, attempt: Callable[[], T]) -> T:
        """Return the first result of ``attempt()``.

        Raises:
            TransientError: the last one, where every attempt raised one. Other errors pass at once.
        """
        for number in range(1, self.attempts):
            try:
                return attempt()
            except TransientError as error:
                time.sleep(self.pause(number, error.pause))
        return attempt()
