"""Parse Redis replies that contain entries of the event queue or dead letters."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from taiji.serving.store import DeadLetter, event_of


def entries_of(found: Any) -> list[Any]:
    """Return the entries of the single stream in an XREADGROUP reply, whose form depends on the protocol version."""
    if not found:
        return []
    if isinstance(found, dict):
        (chunks,) = found.values()
        return (
            [entry for chunk in chunks for entry in chunk] if chunks and isinstance(chunks[0], list) else list(chunks)
        )
    return list(found[0][1])


def unread(fields: dict[bytes, bytes]) -> str:
    """Return the reason why a queued entry cannot be absorbed; empty if it can be absorbed or was erased."""
    if not fields:
        return ""
    try:
        user = fields[b"u"].decode()
        event, reason = event_of(user, fields[b"e"])
    except (KeyError, UnicodeDecodeError):
        return "event not read: the entry is malformed"
    if event is not None and fields.get(b"t") != str(event.time).encode():
        return "event not read: its time differs from that of its entry"
    return reason


def age_of(first: Any, clock: tuple[int, int]) -> float:
    """Return the seconds since a stream's first entry was written; 0 if there is none.

    ``clock`` is the server's time as (seconds, microseconds).
    """
    return max(0.0, clock[0] + clock[1] / 1e6 - int(first[0][0].split(b"-")[0]) / 1e3) if first else 0.0


def dead_letters(unreadable: Iterable[Any], failed: Iterable[tuple[str, Mapping[bytes, bytes]]]) -> list[DeadLetter]:
    """Return the dead letters: unreadable entries first, then the failed users of each release."""
    found = []
    for number, fields in unreadable:
        at = int(number.split(b"-")[0]) * 1000
        found.append(DeadLetter("", fields[b"u"].decode(errors="replace"), fields[b"why"].decode(), 0, at))
    for name, users in failed:
        for user, body in sorted(users.items()):
            values = json.loads(body)
            found.append(DeadLetter(name, user.decode(), values["reason"], int(values["attempts"]), int(values["at"])))
    return found
