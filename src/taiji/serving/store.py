"""Interface of the store, which combines queue, user histories, work list and feature table.

They are combined so that each step is one atomic change. The transaction that removes an event from the queue also adds
it to the history and makes its user due, and the transaction that stores a row also ends the lease. A process that dies
at any point therefore leaves either the state before or the state after a step, and repeating a step has no further
effect.

The path of an event: :meth:`Store.append` → queue → :meth:`Store.absorb` → history, user due → :meth:`Store.claim` →
lease → :meth:`Store.commit` → row (or :meth:`Store.fail` → due again later, and after several failures a dead letter).
If this version cannot read a queued event, this event alone becomes a dead letter, and processing continues.
"""

from __future__ import annotations

import hashlib
import hmac
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from taiji.core.errors import ArtifactError
from taiji.serving.logs import log, where
from taiji.serving.settings import ServingSettings
from taiji.serving.types import Claim, Event, EventBatch, FeatureRow, Release, StoredRow, Unreadable, UserHistory

Appended = Literal["accepted", "duplicate", "conflict", "full"]
MAX_BACKOFF_S = 300.0
SCHEMA = 2
"""Schema version of a store. Version 2 added deferred users, and the API key of each event."""
LEAST_READER = 1
"""Oldest schema version whose code can use a store of version :data:`SCHEMA`."""
ALIVE_S = 10.0
"""Age in seconds of the latest sign of life above which a process counts as dead."""
REPLACED = "the store is not the one that the process opened: it has been emptied or replaced"
FORGET_US = 86_400 * 10**6
"""Age at which the last sign of life of a process is deleted, in microseconds."""
BURST = 32
"""Number of users whom an API key may make due at once, in addition to its steady pace."""


class StoreUnavailable(Exception):
    """The store cannot respond now (restarting, disk full, locked).

    Nothing was changed, or repeating the call is harmless.
    """


class StoreUnusable(StoreUnavailable):
    """The store responds, but must not be used: it was emptied or replaced, or its server could lose events.

    Waiting does not help. The text contains no personal data and no secrets, so it may be logged and sent to clients.
    """


@dataclass(frozen=True)
class Releases:
    """All live releases, the one that requests read (``active``), and the one that was active before (``previous``)."""

    live: dict[str, Release]
    active: str | None
    previous: str | None


@dataclass(frozen=True)
class DeadLetter:
    """A user whose features could not be written, or an unreadable event, with the reason.

    An unreadable event has an empty ``release`` and 0 ``attempts``. ``at`` is in microseconds.
    """

    release: str
    user: str
    reason: str
    attempts: int
    at: int


@dataclass(frozen=True)
class Gauges:
    """State of the queue and the work list; ages are in seconds."""

    queued: int
    queue_age: float
    due: int
    due_age: float
    leased: int
    dead: int
    unreadable: int
    deferred: int


class Store(Protocol):
    """Store of the service.

    All times are in microseconds; ``now`` comes from a :class:`~taiji.serving.clock.SteadyClock`.

    Every method raises :class:`StoreUnavailable` if the store cannot be reached or cannot write, and
    :class:`StoreUnusable` if it has been emptied or replaced since it was opened.
    """

    generation: str
    """Random name given to the store when it was created; a different name means that its contents are lost."""

    def keyed(self, data: bytes) -> str:
        """Return a digest of data that cannot be computed without the store's secret."""
        ...

    def check(self) -> None:
        """Raise an error if the store does not respond, or is not the one that was opened."""
        ...

    def queue_age(self, now: int) -> float:
        """Return the waiting time of the oldest event in the queue in seconds; 0 if the queue is empty."""
        ...

    def clock_floor(self) -> int:
        """Return the high-water mark of the clock: the latest ``now`` that :meth:`claim` recorded; 0 if it is unset."""
        ...

    def repair_clock(self, now: int) -> int:
        """Correct times that were written with a clock ahead of ``now``; return the number of users made due.

        No service may run meanwhile. The high-water mark is set back to ``now`` if it is later. In a store that takes
        the times of queued events and idempotency keys from the same clock, these are set back, too. Turns of API keys
        after ``now`` are reset. A user without a dead letter becomes due now if the user is leased, is due later than
        the settings allow, or has a row with a time after ``now``.
        """
        ...

    def close(self) -> None:
        """Close every connection."""
        ...

    def append(self, batches: Sequence[EventBatch], now: int) -> list[Appended]:
        """Queue each batch at most once, and return one outcome per batch.

        A batch whose key is already in the store is a duplicate if its digest is the same, and a conflict otherwise. A
        batch is also recognised by the key and digest that version 0.2 would have given it.
        """
        ...

    def absorb(self, consumer: str, limit: int, now: int) -> int:
        """Move up to ``limit`` events from the queue into histories, and make their users due.

        Events that cannot be read become dead letters. Return the number of events removed from the queue.
        """
        ...

    def claim(self, release: str, worker: str, limit: int, now: int, lease_us: int) -> list[Claim]:
        """Lease up to ``limit`` users: first those due the longest, then deferred users in order of their turns.

        An expired lease counts as a failure of its user. A user is deferred if the API key that sent its events has
        recently caused more updates than :class:`~taiji.serving.settings.TriggerSettings` allows; each key has separate
        limits for users with and without features. Deferred users become due at their turn, and may be leased earlier
        if too few other users are due.
        """
        ...

    def commit(self, release: str, claims: Sequence[Claim], rows: Sequence[FeatureRow], now: int) -> list[bool]:
        """Store the rows of users whose lease is still valid; return one flag per row, True if it was stored."""
        ...

    def fail(self, release: str, claims: Sequence[Claim], reason: str, now: int, *, count: bool = True) -> None:
        """Release leases after a failure; each user is due again after a back-off, or becomes a dead letter.

        With ``count=False`` the failure is not counted, and no user becomes a dead letter.
        """
        ...

    def abandon(self, release: str, worker: str, now: int, *, count: bool = True) -> int:
        """Release all leases of this worker, and return their number; by default, each counts as a failure."""
        ...

    def read(self, users: Sequence[str]) -> list[StoredRow | None]:
        """Return the users' rows of the active release, all from one snapshot; None for a user without a row."""
        ...

    def histories(self, users: Sequence[str], now: int) -> list[UserHistory]:
        """Return the current histories of users."""
        ...

    def releases(self) -> Releases:
        """Return the live releases."""
        ...

    def add_release(self, release: Release, now: int) -> None:
        """Make a release live in addition to the others; the first release becomes active.

        Users become due in it if they have events that their row in this release does not contain.
        """
        ...

    def publish(self, release: str, rows: Sequence[FeatureRow], now: int) -> int:
        """Store rows of a batch run for users who have no row and were not erased; return the number of stored rows."""
        ...

    def activate(self, release: str) -> None:
        """Switch reads to this release at once; raise KeyError if it is not live."""
        ...

    def retire(self, release: str) -> None:
        """Delete an inactive release with all its rows and work; raise KeyError if it is active or not live."""
        ...

    def roll_back(self) -> str:
        """Switch reads to the previous release, and return the active release; repeating the call changes nothing.

        Raise KeyError if there is no previous release.
        """
        ...

    def waiting(self, release: str, now: int) -> int:
        """Return the number of users leased or due within ``trigger.window_s``; deferred users do not count."""
        ...

    def beat(self, process: str, facts: Mapping[str, Any], now: int) -> None:
        """Record a sign of life of a process, with its report about itself."""
        ...

    def beats(self, now: int) -> dict[str, dict[str, Any]]:
        """Return the reports of the processes that were alive within the last :data:`ALIVE_S`."""
        ...

    def last_beats(self) -> dict[str, int]:
        """Return the time of each process's last sign of life by its own clock, including dead processes."""
        ...

    def dead_letters(self, release: str | None = None) -> list[DeadLetter]:
        """Return the dead letters of one release; by default those of all releases, and unreadable events."""
        ...

    def retry(self, now: int) -> int:
        """Make failed users due again with their failures reset, and queue unreadable events again.

        Return the number of dead letters that were retried.
        """
        ...

    def erase(self, user: str, now: int) -> int:
        """Remove a user from queue, history, work and features, and as the neighbour in other users' rows.

        Such a row of another user loses the neighbour's items at once, and the other user becomes due. Only a keyed
        digest of the erased id stays, so that the artefacts of the batch run cannot restore the user. Return the number
        of changed rows of other users.
        """
        ...

    def scrub(self) -> None:
        """Remove erased data from files (write-ahead log, append-only file), so that later copies do not contain it."""
        ...

    def suppressed(self, users: Sequence[str]) -> list[bool]:
        """Return one flag per user, True if the user was erased."""
        ...

    def count(self, **amounts: int) -> None:
        """Add to the counters that outlive processes (LLM tokens, rows, failures)."""
        ...

    def counters(self) -> dict[str, int]:
        """Return the values of the counters."""
        ...

    def gauges(self, now: int) -> Gauges:
        """Return the state of the queue and the work list."""
        ...


def why(error: StoreUnavailable) -> str:
    """Return a text for the log: the message if the store is unusable, otherwise the error's type and place in the
    code."""
    return str(error) if isinstance(error, StoreUnusable) else where(error.__cause__ or error)


def event_of(user: str, packed: bytes | str) -> tuple[Event | None, str]:
    """Unpack a queued event of a user; return the event and an empty text, or None and the reason for the failure."""
    try:
        event = Event.unpack(packed)
    except Unreadable as error:
        return None, f"event not read: {error}"
    return (event, "") if event.user == user else (None, "event not read: its user differs from that of its row")


def readable(packed: Iterable[bytes | str]) -> tuple[Event, ...]:
    """Return the readable events of a history; count the unreadable ones in the log, and leave them in the store."""
    found, lost = [], 0
    for piece in packed:
        try:
            found.append(Event.unpack(piece))
        except Unreadable:
            lost += 1
    if lost:
        log("events of a history ignored", error="unreadable: written by another version", events=lost)
    return tuple(found)


def readable_releases(packed: Iterable[tuple[str, bytes | str]]) -> dict[str, Release]:
    """Return the readable live releases by name; unreadable releases are left out and logged."""
    found = {}
    for name, body in packed:
        try:
            found[name] = Release.unpack(body)
        except Unreadable as error:
            log("unreadable release ignored", release=name, error=str(error))
    return found


def digest_of(user: str, secret: bytes) -> str:
    """Return the keyed digest under which an erased user is remembered."""
    return keyed_digest(user.encode(), secret)


def keyed_digest(data: bytes, secret: bytes) -> str:
    """Return the HMAC-SHA-256 of data, in hex."""
    return hmac.new(secret, data, hashlib.sha256).hexdigest()


def next_due(settings: ServingSettings, user: str, now: int, *, spread: bool) -> int | None:
    """Return the time at which a new row becomes stale; None if rows never become stale (``staleness_s`` is 0).

    The period ``staleness_s`` is shortened by a share that depends on the user id, at most a tenth (with ``spread``, up
    to all of it), so that users do not all become due together.
    """
    if not settings.trigger.staleness_s:
        return None
    fraction = zlib.crc32(user.encode()) / 2**32
    return now + int(settings.trigger.staleness_s * 1e6 * (1 - fraction * (1.0 if spread else 0.1)))


def latest_due(settings: ServingSettings, now: int) -> int:
    """Return an upper bound of all due times that can have been set by the time ``now``."""
    waits = settings.trigger.staleness_s, MAX_BACKOFF_S, settings.trigger.window_s, 3600.0
    return now + int(max(waits) * 1e6)


def backoff_us(settings: ServingSettings, attempts: int) -> int:
    """Return the wait after the ``attempts``-th failure in microseconds; it doubles each time, up to five minutes."""
    return int(min(settings.worker.backoff_s * 2 ** min(attempts - 1, 30), MAX_BACKOFF_S) * 1e6)


def demand_readable(schema: int, reader: int, place: str) -> None:
    """Check that this version of taiji can use a store.

    Args:
        schema: schema version of the store.
        reader: oldest schema version whose code can use the store.
        place: address of the store, for the error message.

    Raises:
        ArtifactError: this version of taiji is older than ``reader``.
    """
    if reader > SCHEMA:
        raise ArtifactError(
            "The store was created by a newer version of taiji.",
            where=place,
            expected=f"a schema that version {SCHEMA} can use",
            found=f"schema {schema}, for versions from {reader} on",
            fix="upgrade taiji on this machine, or restore the copy that was made before the upgrade",
        )


def paces(settings: ServingSettings) -> tuple[int, int]:
    """Return the microseconds between two turns of an API key: for users with features, and for users without."""
    trigger = settings.trigger
    known, strangers = (max(1, round(3600e6 / rate)) for rate in (trigger.known_per_hour, trigger.strangers_per_hour))
    return known, strangers


def as_of(now: int, newest: int | None) -> int:
    """Return the cutoff time of new features: now, or just after the newest event if a client's clock is ahead."""
    return now if newest is None else max(now, newest + 1)
