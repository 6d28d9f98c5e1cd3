"""Retry policy of the HTTP clients of endpoints and of external rankers: which responses to retry, and after which
pause."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TypeVar

T = TypeVar("T")
TRANSIENT = frozenset({408, 409, 425, 429})
"""Status codes below 500 for which another attempt may succeed."""


class TransientError(Exception):
    """Failure of an attempt after which another attempt may succeed.

    Args:
        reason: description of the failure, for the message after the last attempt.
        pause: pause in seconds that the server requests.
    """

    def __init__(self, reason: str, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.pause = pause


def is_transient(status: int) -> bool:
    """Return True if a request with this HTTP status should be retried."""
    return status in TRANSIENT or status >= 500


def retry_after(value: str | None, now: float | None = None) -> float:
    """Return the pause in seconds that a ``Retry-After`` header requests; 0 if it is missing or invalid.

    Args:
        value: value of the header, a number or a date.
        now: current time in seconds since the epoch; None uses the system clock.
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
        attempts: total number of attempts.
        first: pause in seconds before the second attempt, which doubles for each further attempt.
        longest: longest pause in seconds, even if the server requests more.
    """

    attempts: int
    first: float
    longest: float = 60.0

    def pause(self, attempt: int, asked: float = 0.0) -> float:
        """Return the seconds to wait after a failed attempt. The random jitter affects no results.

        Args:
            attempt: number of the failed attempt, counted from 1.
            asked: pause in seconds that the server requests.
        """
        most = min(self.first * 2 ** (attempt - 1), self.longest)
        return max(most * random.uniform(0.5, 1.0), min(asked, self.longest))

    def run(self, attempt: Callable[[], T]) -> T:
        """Call ``attempt()`` until it succeeds, and return its result.

        Raises:
            TransientError: every attempt failed; this is the last error. Other errors are raised immediately.
        """
        for number in range(1, self.attempts):
            try:
                return attempt()
            except TransientError as error:
                time.sleep(self.pause(number, error.pause))
        return attempt()
