from __future__ import annotations

import pytest

from taiji.core import http_retry
from taiji.core.http_retry import Backoff, TransientError, is_transient, retry_after


def test_statuses():
    assert [status for status in (200, 301, 400, 401, 404, 408, 409, 422, 425, 429, 500, 503, 529) if is_transient(status)] == [
        408, 409, 425, 429, 500, 503, 529,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("header", "seconds"),
    [(None, 0), ("", 0), ("7", 7), ("1.5", 1.5), ("-3", 0), ("soon", 0), ("Thu, 01 Jan 1970 00:00:30 GMT", 20), ("Thu, 01 Jan 1970 00:00:05 GMT", 0)],
    ids=["none", "empty", "whole", "half", "negative", "nonsense", "date", "past"],
)  # fmt: skip
def test_what_the_server_asks_for(header, seconds):
    assert retry_after(header, now=10.0) == seconds


def test_pauses_double_up_to_the_longest_and_obey_the_server():
    backoff = Backoff(9, first=1.0, longest=8.0)
    for attempt, most in ((1, 1), (2, 2), (3, 4), (4, 8), (5, 8)):
        assert all(most / 2 <= backoff.pause(attempt) <= most for _ in range(50))
    assert backoff.pause(1, asked=5.0) == 5.0 and backoff.pause(1, asked=500.0) == 8.0


def failing(times, error):
    calls = []

    def attempt():
        calls.append(None)
        if len(calls) <= times:
            raise error
        return "done"

    return attempt, calls


def test_attempts_end_with_success_the_last_or_another_error(monkeypatch):
    slept = []
    monkeypatch.setattr(http_retry.time, "sleep", slept.append)
    attempt, calls = failing(2, TransientError("busy", 3.0))
    assert Backoff(3, 0.1).run(attempt) == "done" and len(calls) == 3 and slept == [3.0, 3.0]
    attempt, calls = failing(9, TransientError("busy"))
    with pytest.raises(TransientError, match="busy"):
        Backoff(3, 0.1).run(attempt)
    assert len(calls) == 3 and len(slept) == 4, "no pause after the last"
    attempt, calls = failing(9, KeyError("x"))
    with pytest.raises(KeyError):
        Backoff(3, 0.1).run(attempt)
    assert len(calls) == 1
