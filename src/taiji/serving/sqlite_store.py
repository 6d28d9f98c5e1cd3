"""Store in one SQLite file, for one machine and without a server.

With a write-ahead log, readers never wait for the writer. A full sync at each commit means that a power cut loses no
acknowledged data, and ``secure_delete`` overwrites deleted data. Each thread has its own connection, which caches
prepared statements. ``read`` is one statement and thus one snapshot, so its rows always belong to the active release.
"""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from taiji.core.artifacts import make_folder
from taiji.core.errors import ResourceError
from taiji.serving.settings import ServingSettings
from taiji.serving.sqlite_file import identity_of, one_number, translated
from taiji.serving.sqlite_schema import prepare
from taiji.serving.sqlite_turns import ask_for, fill, gauges, in_turn, repair_clock
from taiji.serving.store import (
    ALIVE_S,
    FORGET_US,
    REPLACED,
    Appended,
    DeadLetter,
    Gauges,
    Releases,
    StoreUnavailable,
    StoreUnusable,
    as_of,
    backoff_us,
    digest_of,
    event_of,
    keyed_digest,
    next_due,
    readable,
    readable_releases,
)
from taiji.serving.types import Claim, EventBatch, FeatureRow, Release, StoredRow, UserHistory

READ_ROWS = """SELECT f.user, f.release, f.version, f.head, f.tail FROM json_each(?) AS u CROSS JOIN features AS f ON f.user = u.value
WHERE f.release = (SELECT value FROM meta WHERE key = 'active')"""


class SQLiteStore:
    """See :class:`taiji.serving.store.Store`."""

    def __init__(self, path: Path, settings: ServingSettings) -> None:
        self._path, self._settings = path, settings
        self._local = threading.local()
        self._all: list[tuple[sqlite3.Connection, threading.RLock]] = []
        self._file: tuple[int, int] | None = None
        """Identity of the opened file, to detect that it was deleted or replaced. Otherwise connections would continue
        to write to the old file, and these writes would be lost.
        """
        try:
            make_folder(path.parent)
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))  # readable by its owner only
            with translated():
                self._connection()[0].execute("PRAGMA journal_mode = WAL")
                prepare(self._connection()[0], str(path))
                self._file = identity_of(path)
            with self._change() as db:
                made = ("secret", secrets.token_bytes(32)), ("generation", secrets.token_hex(16))
                db.executemany("INSERT OR IGNORE INTO meta VALUES (?, ?)", made)
                found = dict(db.execute("SELECT key, value FROM meta WHERE key IN ('secret', 'generation')"))
                self._secret: bytes = found["secret"]
                self.generation: str = found["generation"]
        except (OSError, StoreUnavailable, sqlite3.DatabaseError) as error:
            raise ResourceError(
                "Could not open the store.", where=str(path), expected="a writable SQLite file", found=str(error)
            ) from error

    def _connection(self) -> tuple[sqlite3.Connection, threading.RLock]:
        """Return this thread's connection and its lock."""
        found: tuple[sqlite3.Connection, threading.RLock] | None = getattr(self._local, "found", None)
        if found is None:
            connection = sqlite3.connect(
                self._path, timeout=5, isolation_level=None, check_same_thread=False, cached_statements=256
            )
            connection.executescript(
                "PRAGMA synchronous = FULL; PRAGMA secure_delete = ON; PRAGMA cache_size = -65536; PRAGMA temp_store = MEMORY;"
            )
            found = self._local.found = connection, threading.RLock()
            self._all.append(found)
        return found

    @contextmanager
    def _held(self) -> Iterator[sqlite3.Connection]:
        """Yield this thread's connection and hold its lock: closing a connection in use would crash SQLite."""
        self._demand_file()
        connection, busy = self._connection()
        with busy:
            yield connection

    def _demand_file(self) -> None:
        """Raise StoreUnusable if the file at the store's path is not the one that was opened."""
        if self._file is not None and identity_of(self._path) != self._file:
            raise StoreUnusable(REPLACED)

    @contextmanager
    def _look(self) -> Iterator[sqlite3.Connection]:
        with translated(), self._held() as db:
            yield db

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        with translated(), self._held() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
                self._demand_file()  # before the change is reported as durable
            except BaseException:
                if db.in_transaction:  # SQLite may have rolled back already, for example on a full disk
                    db.execute("ROLLBACK")
                raise

    def keyed(self, data: bytes) -> str:
        return keyed_digest(data, self._secret)

    def check(self) -> None:
        with self._look() as db:
            found = db.execute("SELECT value FROM meta WHERE key = 'generation'").fetchone()
        if not found or found[0] != self.generation:
            raise StoreUnusable(REPLACED)

    def queue_age(self, now: int) -> float:
        with self._look() as db:
            oldest = db.execute("SELECT at FROM queue ORDER BY id LIMIT 1").fetchone()
        return max(0, now - oldest[0]) / 1e6 if oldest else 0.0

    def clock_floor(self) -> int:
        with self._look() as db:
            found = db.execute("SELECT value FROM meta WHERE key = 'clock'").fetchone()
        return int(found[0]) if found else 0

    def repair_clock(self, now: int) -> int:
        with self._change() as db:
            return repair_clock(db, self._settings, now)

    def close(self) -> None:
        for connection, busy in self._all:
            with busy:
                connection.close()
        self._all.clear()
        self._local = threading.local()

    def append(self, batches: Sequence[EventBatch], now: int) -> list[Appended]:
        outcomes: list[Appended] = []
        with self._change() as db:
            queued = one_number(db, "SELECT coalesce(max(id) - min(id) + 1, 0) FROM queue")
            db.execute("DELETE FROM idempotency WHERE at < ?", (now - int(self._settings.idempotency_s * 1e6),))
            for batch in batches:
                known = db.execute(
                    "SELECT digest FROM idempotency WHERE key IN (?, ?)", (batch.key, batch.former[0])
                ).fetchone()
                if known:
                    outcomes.append("duplicate" if known[0] in (batch.digest, batch.former[1]) else "conflict")
                elif queued >= self._settings.limits.backlog:
                    outcomes.append("full")
                else:
                    db.execute("INSERT INTO idempotency VALUES (?, ?, ?)", (batch.key, batch.digest, now))
                    db.executemany(
                        "INSERT INTO queue (user, event, at, source) VALUES (?, ?, ?, ?)",
                        [(e.user, e.pack(), now, batch.source) for e in batch.events],
                    )
                    queued += len(batch.events)
                    outcomes.append("accepted")
        return outcomes

    def absorb(self, consumer: str, limit: int, now: int) -> int:
        with self._look() as db:
            if not db.execute("SELECT 1 FROM queue LIMIT 1").fetchone():
                return 0
        with self._change() as db:
            taken = db.execute("SELECT id, user, event, at, source FROM queue ORDER BY id LIMIT ?", (limit,)).fetchall()
            if not taken:
                return 0
            fresh, sources = Counter[str](), dict[str, str]()
            for number, user, packed, at, source in taken:
                event, reason = event_of(user, packed)
                if event is None:
                    db.execute("INSERT INTO unreadable VALUES (?, ?, ?, ?, ?)", (number, user, packed, at, reason))
                    continue
                sources[event.user] = source or ""
                fresh[event.user] += db.execute(
                    "INSERT OR IGNORE INTO history VALUES (?, ?, ?, ?)", (event.user, event.time, event.id, packed)
                ).rowcount
            for user, amount in fresh.items():
                self._note(db, user, amount, now, sources[user])
            db.execute("DELETE FROM queue WHERE id BETWEEN ? AND ?", (taken[0][0], taken[-1][0]))
        return len(taken)

    def _note(self, db: sqlite3.Connection, user: str, amount: int, now: int, source: str) -> None:
        """Count a user's new events, drop the oldest events above the history limit, and request new features."""
        db.execute(
            "INSERT INTO users VALUES (?, ?) ON CONFLICT DO UPDATE SET seen = seen + excluded.seen", (user, amount)
        )
        db.execute(
            "DELETE FROM history WHERE user = ?1 AND (time, id) IN (SELECT time, id FROM history WHERE user = ?1 ORDER BY time DESC, id DESC LIMIT -1 OFFSET ?2)",
            (user, self._settings.worker.history),
        )
        ask_for(db, self._settings, user, now, source)

    def claim(self, release: str, worker: str, limit: int, now: int, lease_us: int) -> list[Claim]:
        with self._look() as db:
            waiting = "SELECT 1 FROM work WHERE release = ? AND {0} IS NOT NULL AND {0} <= ? LIMIT 1"
            late = db.execute(
                "SELECT 1 FROM work WHERE release = ? AND late IS NOT NULL LIMIT 1", (release,)
            ).fetchone()
            soon = (db.execute(waiting.format(column), (release, now)).fetchone() for column in ("due", "lease"))
            if not late and not any(soon):
                return []
        with self._change() as db:
            db.execute(
                "INSERT INTO meta VALUES ('clock', ?) ON CONFLICT DO UPDATE SET value = max(value, excluded.value)",
                (now,),
            )
            expired = db.execute(
                "SELECT user FROM work WHERE release = ? AND lease IS NOT NULL AND lease <= ?", (release, now)
            ).fetchall()
            for (user,) in expired:
                self._give_back(db, release, user, "the worker died or hung", now, count=True)
            token = secrets.token_hex(8)
            chosen = in_turn(db, release, now, limit)
            db.executemany(
                "UPDATE work SET due = NULL, late = NULL, lease = ?, token = ?, worker = ? WHERE release = ? AND user = ?",
                [(now + lease_us, token, worker, release, user) for user, _ in chosen],
            )
            return [Claim(self._history(db, user, now), token, attempts) for user, attempts in chosen]

    def _history(self, db: sqlite3.Connection, user: str, now: int) -> UserHistory:
        events = readable(
            packed for (packed,) in db.execute("SELECT event FROM history WHERE user = ? ORDER BY time, id", (user,))
        )
        seen = db.execute("SELECT seen FROM users WHERE user = ?", (user,)).fetchone()
        forgotten = db.execute("SELECT 1 FROM erased WHERE digest = ?", (digest_of(user, self._secret),)).fetchone()
        return UserHistory(
            user, as_of(now, events[-1].time if events else None), events, seen[0] if seen else 0, bool(forgotten)
        )

    def commit(self, release: str, claims: Sequence[Claim], rows: Sequence[FeatureRow], now: int) -> list[bool]:
        stored = []
        with self._change() as db:
            for claim, row in zip(claims, rows, strict=True):
                held = db.execute(
                    "SELECT 1 FROM work WHERE release = ? AND user = ? AND token = ?", (release, row.user, claim.token)
                ).fetchone()
                stored.append(bool(held))
                if not held:
                    continue
                self._put(db, release, row)
                unread = db.execute("SELECT seen FROM users WHERE user = ?", (row.user,)).fetchone()
                more = unread is not None and unread[0] > row.events_seen
                due = (
                    now + int(self._settings.trigger.window_s * 1e6)
                    if more
                    else next_due(self._settings, row.user, now, spread=False)
                )
                db.execute(
                    "UPDATE work SET due = ?, lease = NULL, token = NULL, worker = NULL, attempts = 0, reason = NULL WHERE release = ? AND user = ?",
                    (due, release, row.user),
                )
        return stored

    def _put(self, db: sqlite3.Connection, release: str, row: FeatureRow) -> None:
        neighbour, tail = row.neighbour, row.tail()
        if (
            neighbour is not None
            and db.execute("SELECT 1 FROM erased WHERE digest = ?", (digest_of(neighbour, self._secret),)).fetchone()
        ):
            neighbour, tail = None, b"[]"  # the neighbour was erased during the LLM call
        db.execute(
            """INSERT INTO features VALUES (?, ?, 1, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET version = version + 1, seen = excluded.seen,
            neighbour = excluded.neighbour, head = excluded.head, tail = excluded.tail""",
            (release, row.user, row.events_seen, neighbour, row.head(), tail),
        )

    def fail(self, release: str, claims: Sequence[Claim], reason: str, now: int, *, count: bool = True) -> None:
        with self._change() as db:
            for claim in claims:
                if db.execute(
                    "SELECT 1 FROM work WHERE release = ? AND user = ? AND token = ?",
                    (release, claim.history.user, claim.token),
                ).fetchone():
                    self._give_back(db, release, claim.history.user, reason, now, count=count)

    def _give_back(
        self, db: sqlite3.Connection, release: str, user: str, reason: str, now: int, *, count: bool
    ) -> None:
        attempts = one_number(db, "SELECT attempts FROM work WHERE release = ? AND user = ?", release, user) + count
        dead = count and attempts >= self._settings.worker.attempts
        due = None if dead else now + (backoff_us(self._settings, attempts) if attempts else 0)
        db.execute(
            "UPDATE work SET due = ?, lease = NULL, token = NULL, worker = NULL, attempts = ?, reason = ? WHERE release = ? AND user = ?",
            (due, attempts, json.dumps({"reason": reason, "at": now}) if dead else None, release, user),
        )

    def abandon(self, release: str, worker: str, now: int, *, count: bool = True) -> int:
        with self._change() as db:
            held = db.execute(
                "SELECT user FROM work WHERE release = ? AND worker = ? AND lease IS NOT NULL", (release, worker)
            ).fetchall()
            for (user,) in held:
                self._give_back(db, release, user, "the worker died or hung", now, count=count)
        return len(held)

    def read(self, users: Sequence[str]) -> list[StoredRow | None]:
        with self._look() as db:
            found = {row[0]: StoredRow(*row[1:]) for row in db.execute(READ_ROWS, (json.dumps(users),))}
        return [found.get(user) for user in users]

    def histories(self, users: Sequence[str], now: int) -> list[UserHistory]:
        with self._look() as db:
            return [self._history(db, user, now) for user in users]

    def releases(self) -> Releases:
        with self._look() as db:
            live = readable_releases(db.execute("SELECT name, body FROM releases").fetchall())
            meta = dict(db.execute("SELECT key, value FROM meta WHERE key IN ('active', 'previous')"))
        return Releases(live, meta.get("active"), meta.get("previous"))

    def add_release(self, release: Release, now: int) -> None:
        due = now + int(self._settings.trigger.window_s * 1e6)
        with self._change() as db:
            known = db.execute("SELECT 1 FROM releases WHERE name = ?", (release.name,)).fetchone()
            db.execute("INSERT OR REPLACE INTO releases VALUES (?, ?)", (release.name, release.pack()))
            db.execute("INSERT OR IGNORE INTO meta VALUES ('active', ?)", (release.name,))
            if not known and release.features:
                fill(db, self._settings, release.name, due)

    def publish(self, release: str, rows: Sequence[FeatureRow], now: int) -> int:
        stored = 0
        with self._change() as db:
            for row in rows:
                known = db.execute(
                    "SELECT 1 FROM features WHERE release = ? AND user = ?", (release, row.user)
                ).fetchone()
                if (
                    known
                    or db.execute(
                        "SELECT 1 FROM erased WHERE digest = ?", (digest_of(row.user, self._secret),)
                    ).fetchone()
                ):
                    continue
                self._put(db, release, row)
                db.execute(
                    "INSERT OR IGNORE INTO work (release, user, due) VALUES (?, ?, ?)",
                    (release, row.user, next_due(self._settings, row.user, now, spread=True)),
                )
                stored += 1
        return stored

    def activate(self, release: str) -> None:
        with self._change() as db:
            if not db.execute("SELECT 1 FROM releases WHERE name = ?", (release,)).fetchone():
                raise KeyError(release)
            active = db.execute("SELECT value FROM meta WHERE key = 'active'").fetchone()
            if active and active[0] != release:
                db.execute("INSERT OR REPLACE INTO meta VALUES ('previous', ?)", active)
                db.execute("DELETE FROM meta WHERE key = 'undone'")
            db.execute("INSERT OR REPLACE INTO meta VALUES ('active', ?)", (release,))

    def roll_back(self) -> str:
        with self._change() as db:
            found = dict(db.execute("SELECT key, value FROM meta WHERE key IN ('active', 'previous', 'undone')"))
            active, previous = found.get("active"), found.get("previous")
            if active is None or previous is None:
                raise KeyError("previous")
            if found.get("undone") == previous:  # a repeated call, for example because the first response was lost
                return str(active)
            for name, value in (("active", previous), ("previous", active), ("undone", active)):
                db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))
        return str(previous)

    def waiting(self, release: str, now: int) -> int:
        soon = now + int(self._settings.trigger.window_s * 1e6)
        with self._look() as db:
            return one_number(
                db, "SELECT count(*) FROM work WHERE release = ? AND (lease IS NOT NULL OR due <= ?)", release, soon
            )

    def beat(self, process: str, facts: Mapping[str, Any], now: int) -> None:
        with self._change() as db:
            db.execute("DELETE FROM beats WHERE at < ?", (now - FORGET_US,))
            db.execute("INSERT OR REPLACE INTO beats VALUES (?, ?, ?)", (process, now, json.dumps(facts)))

    def beats(self, now: int) -> dict[str, dict[str, Any]]:
        with self._look() as db:
            found = db.execute("SELECT process, body FROM beats WHERE at > ?", (now - int(ALIVE_S * 1e6),)).fetchall()
        return {process: json.loads(body) for process, body in found}

    def last_beats(self) -> dict[str, int]:
        with self._look() as db:
            return dict(db.execute("SELECT process, at FROM beats").fetchall())

    def retire(self, release: str) -> None:
        with self._change() as db:
            active = db.execute("SELECT value FROM meta WHERE key = 'active'").fetchone()
            if (active and active[0] == release) or not db.execute(
                "DELETE FROM releases WHERE name = ?", (release,)
            ).rowcount:
                raise KeyError(release)
            db.execute("DELETE FROM meta WHERE key IN ('previous', 'undone') AND value = ?", (release,))
            db.execute("DELETE FROM features WHERE release = ?", (release,))
            db.execute("DELETE FROM work WHERE release = ?", (release,))
            db.execute("DELETE FROM pace WHERE release = ?", (release,))

    def dead_letters(self, release: str | None = None) -> list[DeadLetter]:
        with self._look() as db:
            found = db.execute(
                "SELECT release, user, reason, attempts FROM work WHERE reason IS NOT NULL AND release = coalesce(?, release) ORDER BY release, user",
                (release,),
            ).fetchall()
            unread = db.execute("SELECT user, reason, at FROM unreadable ORDER BY id").fetchall() if not release else []
        letters = [DeadLetter("", user, reason, 0, at) for user, reason, at in unread]
        return letters + [
            DeadLetter(name, user, json.loads(reason)["reason"], attempts, json.loads(reason)["at"])
            for name, user, reason, attempts in found
        ]

    def retry(self, now: int) -> int:
        with self._change() as db:
            again = db.execute(
                "INSERT INTO queue (user, event, at) SELECT user, event, ? FROM unreadable", (now,)
            ).rowcount
            db.execute("DELETE FROM unreadable")
            return (
                again
                + db.execute(
                    "UPDATE work SET due = coalesce(due, ?), attempts = 0, reason = NULL WHERE reason IS NOT NULL AND lease IS NULL",
                    (now,),
                ).rowcount
            )

    def erase(self, user: str, now: int) -> int:
        due = now + int(self._settings.trigger.window_s * 1e6)
        with self._change() as db:
            db.execute("INSERT OR IGNORE INTO erased VALUES (?)", (digest_of(user, self._secret),))
            for table in ("queue", "unreadable", "history", "users", "features", "work"):
                db.execute(f"DELETE FROM {table} WHERE user = ?", (user,))
            citing = db.execute("SELECT release, user FROM features WHERE neighbour = ?", (user,)).fetchall()
            db.execute(
                "UPDATE features SET neighbour = NULL, tail = X'5B5D', version = version + 1 WHERE neighbour = ?",
                (user,),
            )
            db.executemany(
                "INSERT INTO work (release, user, due) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET due = CASE WHEN lease IS NULL THEN min(coalesce(due, excluded.due), excluded.due) END",
                [(*pair, due) for pair in citing],
            )
        return len(citing)

    def scrub(self) -> None:
        with self._look() as db:
            for _ in range(50):
                if db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0:
                    return
        raise StoreUnavailable("the write-ahead log is in use by a long read")

    def suppressed(self, users: Sequence[str]) -> list[bool]:
        with self._look() as db:
            return [
                bool(db.execute("SELECT 1 FROM erased WHERE digest = ?", (digest_of(user, self._secret),)).fetchone())
                for user in users
            ]

    def count(self, **amounts: int) -> None:
        with self._change() as db:
            db.executemany(
                "INSERT INTO counters VALUES (?, ?) ON CONFLICT DO UPDATE SET value = value + excluded.value",
                sorted(amounts.items()),
            )

    def counters(self) -> dict[str, int]:
        with self._look() as db:
            return dict(db.execute("SELECT name, value FROM counters ORDER BY name"))

    def gauges(self, now: int) -> Gauges:
        with self._look() as db:
            return gauges(db, now)
