"""Entries of the queue in Redis, as its answers shape them."""

from __future__ import annotations

from typing import Any

from taiji.serving.store import event_of


def entries_of(found: Any) -> list[Any]:
    """Return the entries of the one stream in an XREADGROUP answer, which the two protocol versions shape differently."""
    if not found:
        return []
    if isinstance(found, dict):
        (chunks,) = found.values()
        return (
            [entry for chunk in chunks for entry in chunk] if chunks and isinstance(chunks[0], list) else list(chunks)
        )
    return list(found[0][1])


def unread(fields: dict[bytes, bytes]) -> str:
    """Return the reason for which a queued entry cannot be absorbed; empty for one that can, or that was erased."""
    if not fields:
        return ""
    try:
        user = fields[b"u"].decode()
        event, reason = event_of(user, fields[b"e"])
    except (KeyError, UnicodeDecodeError):
        return "event not read: the entry has another form"
    if event is not None and fields.get(b"t") != str(event.time).encode():
        return "event not read: its time is not that of its entry"
    return reason


def age_of(first: Any, clock: tuple[int, int]) -> float:
    """Return the seconds since the first entry of a stream was written, by the server's clock."""
    return max(0.0, clock[0] + clock[1] / 1e6 - int(first[0][0].split(b"-")[0]) / 1e3) if first else 0.0
