"""The contract of the store, which is queue, user histories, work list and feature table in one.

They are one thing so that each step is one atomic change: an event leaves the queue in the transaction in which it
enters the history and makes its user due; a row is stored in the one that ends the lease. A process that dies at any
point therefore leaves either the state before or the state after, and a step that is repeated has no second effect.

An event's way: :meth:`Store.append` → queue → :meth:`Store.absorb` → history, user due → :meth:`Store.claim` → lease →
:meth:`Store.commit` → row (or :meth:`Store.fail` → due again later, at last a dead letter). An event in the queue that this
version cannot read is put aside as a dead letter of its own, and the work goes on.
"""

from __future__ import annotations

import hashlib
import hmac
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from taiji.core.errors import ArtifactError
from taiji.serving.logs import log
from taiji.serving.settings import ServingSettings
from taiji.serving.types import Claim, Event, EventBatch, FeatureRow, Release, StoredRow, Unreadable, UserHistory

Appended = Literal["accepted", "duplicate", "conflict", "full"]
MAX_BACKOFF_S = 300.0
SCHEMA = 2
"""Of what lies in a store. 1: the first. 2: the API key of an event, deferred users."""
LEAST_READER = 1
"""Oldest version whose code can use a store of this one."""
ALIVE_S = 10.0
"""Age of a process's latest sign of life from which on it counts as dead."""
REPLACED = "the store is another one than at the start of the process: it has been emptied or replaced"
FORGET_US = 86_400 * 10**6
"""Age from which on a process's last sign of life is deleted."""
BURST = 32
"""Users above its pace whom an API key may ask for at once."""


class StoreUnavailable(Exception):
    """The store cannot answer now (restarting, disk full, locked): nothing was changed, or a repetition is harmless."""


@dataclass(frozen=True)
class Releases:
    """Every live release, and which one is read (``active``) and which one was before it (``previous``)."""

    live: dict[str, Release]
    active: str | None
    previous: str | None


@dataclass(frozen=True)
class DeadLetter:
    """A user whose features could not be written, or an event that could not be read (no release, no attempts), and why."""

    release: str
    user: str
    reason: str
    attempts: int
    at: int


@dataclass(frozen=True)
class Gauges:
    """The state of queue and work list. Ages in seconds."""

    queued: int
    queue_age: float
    due: int
    due_age: float
    leased: int
    dead: int
    unreadable: int
    deferred: int


class Store(Protocol):
    """All times are microseconds, ``now`` from a :class:`~taiji.serving.clock.SteadyClock`.

    Every method raises :class:`StoreUnavailable` when the store cannot be reached or cannot write.
    """

    generation: str
    """Random name that the store got when it was made; another one means that its contents are gone."""

    def keyed(self, data: bytes) -> str:
        """Return a digest of data that nobody can compute without the store's secret."""
        ...

    def check(self) -> None:
        """Raise unless the store answers, and is the one that was opened."""
        ...

    def queue_age(self, now: int) -> float:
        """Seconds for which the oldest event in the queue has waited; 0 where there is none."""
        ...

    def clock_floor(self) -> int:
        """Latest ``now`` a worker ever gave."""
        ...

    def repair_clock(self, now: int) -> int:
        """Undo what was written under a clock ahead of ``now``, while no service runs; returns how many users are due by it.

        The mark and every later time come back to ``now``: users due or leased later than staleness or a lease allow, and users whose rows say
        that they were made later, are due now; deferred ones begin a new turn.
        """
        ...

    def close(self) -> None:
        """Close every connection."""
        ...

    def append(self, batches: Sequence[EventBatch], now: int) -> list[Appended]:
        """Queue each batch at most once; a known key with another digest is a conflict; full when the backlog is.

        A batch is known, too, by the key and digest that the version before would have given it.
        """
        ...

    def absorb(self, consumer: str, limit: int, now: int) -> int:
        """Move up to ``limit`` events from the queue into histories and make their users due; returns how many left the queue.

        Events that cannot be read leave it for the dead letters.
        """
        ...

    def claim(self, release: str, worker: str, limit: int, now: int, lease_us: int) -> list[Claim]:
        """Lease the users that are due the longest, then deferred ones in turn. An expired lease counts as a failure of its user.

        A user is deferred whose API key has asked for more users in the last time than :class:`~taiji.serving.settings.TriggerSettings`
        allows: each key has its own pace for users with and without features. Deferred users are due when their turn comes, and
        are taken before where nobody is due.
        """
        ...

    def commit(self, release: str, claims: Sequence[Claim], rows: Sequence[FeatureRow], now: int) -> list[bool]:
        """Store rows whose lease still holds; False where it does not (then nothing was stored)."""
        ...

    def fail(self, release: str, claims: Sequence[Claim], reason: str, now: int, *, count: bool = True) -> None:
        """Give leases back after a failure; the user is due again after a back-off, or a dead letter."""
        ...

    def abandon(self, release: str, worker: str, now: int, *, count: bool = True) -> int:
        """Give back whatever this worker holds; by default it counts as a failure. Returns how many."""
        ...

    def read(self, users: Sequence[str]) -> list[StoredRow | None]:
        """The active release's rows, all of one moment."""
        ...

    def histories(self, users: Sequence[str], now: int) -> list[UserHistory]:
        """Return what is known about users now."""
        ...

    def releases(self) -> Releases:
        """The live releases."""
        ...

    def add_release(self, release: Release, now: int) -> None:
        """Make a release live beside the others; users with events are due under it. The first one becomes active."""
        ...

    def publish(self, release: str, rows: Sequence[FeatureRow], now: int) -> int:
        """Store a batch run's rows where a user has none yet (erased users left out); returns how many."""
        ...

    def activate(self, release: str) -> None:
        """Reads switch to this release at once; raises KeyError when it is not live."""
        ...

    def retire(self, release: str) -> None:
        """Delete a release that is not active with all its rows and work; raises KeyError otherwise."""
        ...

    def roll_back(self) -> str:
        """Reads switch to the previous release, whose name is returned; repeated, it changes nothing. Raises KeyError when there is none."""
        ...

    def waiting(self, release: str, now: int) -> int:
        """Users who are with the LLM, or will be due within the window; deferred ones do not count."""
        ...

    def beat(self, process: str, facts: Mapping[str, Any], now: int) -> None:
        """Note that a process lives, and what it says of itself."""
        ...

    def beats(self, now: int) -> dict[str, dict[str, Any]]:
        """Return what the processes said that lived within the last :data:`ALIVE_S`."""
        ...

    def last_beats(self) -> dict[str, int]:
        """Return when each process last said that it lives, by its own clock, however long ago."""
        ...

    def dead_letters(self, release: str | None = None) -> list[DeadLetter]:
        """Users given up."""
        ...

    def retry(self, now: int) -> int:
        """Make every dead letter due again with a clean count; returns how many."""
        ...

    def erase(self, user: str, now: int) -> int:
        """Remove a user from queue, history, work, features and the neighbours' sequences; returns how many neighbours.

        The neighbours' rows lose the sequence at once and are due to be written anew. What stays is a keyed digest of
        the id, so that the batch run's artefacts cannot bring the user back.
        """
        ...

    def scrub(self) -> None:
        """Remove erased data from files (write-ahead log, append-only file), so that a copy made after holds none."""
        ...

    def suppressed(self, users: Sequence[str]) -> list[bool]:
        """Return which users were erased."""
        ...

    def count(self, **amounts: int) -> None:
        """Add to counters that outlive processes (LLM tokens, rows, failures)."""
        ...

    def counters(self) -> dict[str, int]:
        """Values of the counters."""
        ...

    def gauges(self, now: int) -> Gauges:
        """The state of queue and work list."""
        ...


def event_of(user: str, packed: bytes | str) -> tuple[Event | None, str]:
    """Return a queued event of a user, or None and the reason for which it cannot be read."""
    try:
        event = Event.unpack(packed)
    except Unreadable as error:
        return None, f"event not read: {error}"
    return (event, "") if event.user == user else (None, "event not read: it is of another user than its row")


def readable(packed: Iterable[bytes | str]) -> tuple[Event, ...]:
    """Return the events of a history; those that a newer version wrote stay in the store and are left out here, which is logged."""
    found, lost = [], 0
    for piece in packed:
        try:
            found.append(Event.unpack(piece))
        except Unreadable:
            lost += 1
    if lost:
        log("events of a history left out", error="written by another version", events=lost)
    return tuple(found)


def readable_releases(packed: Iterable[tuple[str, bytes | str]]) -> dict[str, Release]:
    """Return the live releases by name; one that cannot be read is left out, which is logged."""
    found = {}
    for name, body in packed:
        try:
            found[name] = Release.unpack(body)
        except Unreadable as error:
            log("release left out", release=name, error=str(error))
    return found


def digest_of(user: str, secret: bytes) -> str:
    """The keyed digest under which an erased user is remembered."""
    return keyed_digest(user.encode(), secret)


def keyed_digest(data: bytes, secret: bytes) -> str:
    """Return the HMAC-SHA-256 of data, in hex."""
    return hmac.new(secret, data, hashlib.sha256).hexdigest()


def next_due(settings: ServingSettings, user: str, now: int, *, spread: bool) -> int | None:
    """Return when a fresh row becomes stale: up to a tenth earlier (``spread``: anywhere before), by the user's id, against herds."""
    if not settings.trigger.staleness_s:
        return None
    fraction = zlib.crc32(user.encode()) / 2**32
    return now + int(settings.trigger.staleness_s * 1e6 * (1 - fraction * (1.0 if spread else 0.1)))


def latest_due(settings: ServingSettings, now: int) -> int:
    """Return the time after which nobody can be due by anything that was done until now."""
    waits = settings.trigger.staleness_s, MAX_BACKOFF_S, settings.trigger.window_s, 3600.0
    return now + int(max(waits) * 1e6)


def backoff_us(settings: ServingSettings, attempts: int) -> int:
    """Wait after the ``attempts``-th failure: doubles each time, five minutes at most."""
    return int(min(settings.worker.backoff_s * 2 ** min(attempts - 1, 30), MAX_BACKOFF_S) * 1e6)


def demand_readable(schema: int, reader: int, place: str) -> None:
    """Raise unless this version can use a store of a schema that versions from ``reader`` on can use.

    Raises:
        ArtifactError: it cannot.
    """
    if reader > SCHEMA:
        raise ArtifactError(
            "The store was made by a newer version of taiji.",
            where=place,
            expected=f"a schema that version {SCHEMA} can use",
            found=f"schema {schema}, for versions from {reader} on",
            fix="upgrade taiji on this machine, or restore the copy that was made before the upgrade",
        )


def paces(settings: ServingSettings) -> tuple[int, int]:
    """Return the microseconds between two users of one API key, for users with and without features."""
    trigger = settings.trigger
    known, strangers = (max(1, round(3600e6 / rate)) for rate in (trigger.known_per_hour, trigger.strangers_per_hour))
    return known, strangers


def as_of(now: int, newest: int | None) -> int:
    """The time features are made at: now, or just after the newest event where a client's clock runs ahead."""
    return now if newest is None else max(now, newest + 1)
