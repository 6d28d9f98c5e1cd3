"""Work list of the SQLite store: which users are due, in which order workers lease them (see
:meth:`taiji.serving.store.Store.claim`), and the repair of its times."""

from __future__ import annotations

import sqlite3

from taiji.serving.settings import ServingSettings
from taiji.serving.store import BURST, Gauges, latest_due, paces

KNOWN = "EXISTS (SELECT 1 FROM features WHERE user = {0})"
WITH_FEATURES = "coalesce(json_extract(r.body, '$.quantizer_version'), 'unreadable') <> ''"


def ask_for(db: sqlite3.Connection, settings: ServingSettings, user: str, now: int, source: str) -> None:
    """Make a user with new events due in every live release with features.

    If the API key ``source``, which sent the events, exceeds its pace, the user is deferred to the key's next turn
    instead.
    """
    trigger = settings.trigger
    found = db.execute(
        f"""SELECT r.name, (SELECT seen FROM users WHERE user = ?1) - coalesce(f.seen, 0), w.due, w.late, w.lease, w.attempts
        FROM releases AS r LEFT JOIN features AS f ON f.user = ?1 AND f.release = r.name
        LEFT JOIN work AS w ON w.user = ?1 AND w.release = r.name WHERE {WITH_FEATURES}""",
        (user,),
    ).fetchall()
    if not found:
        return
    known = bool(db.execute("SELECT " + KNOWN.format("?"), (user,)).fetchone()[0])
    for release, unread, due, late, lease, attempts in found:
        wanted = now if unread >= trigger.events else now + int(trigger.window_s * 1e6)
        # The due time of a leased user is set when the lease ends; a user that failed before keeps its back-off.
        if lease is not None or late is not None or (due is not None and (attempts or due <= wanted)):
            continue
        turn = _turn(db, release, source, known, now, paces(settings)[not known])
        column, time = ("late", turn) if turn > now else ("due", wanted)
        db.execute(
            f"INSERT INTO work (release, user, {column}) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET {column} = excluded.{column}",
            (release, user, time),
        )


def _turn(db: sqlite3.Connection, release: str, source: str, known: bool, now: int, each: int) -> int:
    """Take the next turn of an API key, and return its time; ``each`` is the time between two turns. Both are in
    microseconds."""
    row = db.execute(
        """INSERT INTO pace VALUES (?1, ?2, ?3, ?4 - ?5 * ?6 + ?5)
        ON CONFLICT DO UPDATE SET at = max(at, ?4 - ?5 * ?6) + ?5 RETURNING at""",
        (release, source, known, now, each, BURST),
    ).fetchone()
    return int(row[0])


def in_turn(db: sqlite3.Connection, release: str, now: int, limit: int) -> list[tuple[str, int]]:
    """Return up to ``limit`` users, each with the number of its failures.

    Users that have been due the longest come first, then deferred users in order of their turns.
    """
    db.execute(
        "UPDATE work SET due = min(coalesce(due, late), late), late = NULL WHERE release = ? AND late <= ?",
        (release, now),
    )
    due = db.execute(
        "SELECT user, attempts FROM work WHERE release = ? AND due IS NOT NULL AND due <= ? ORDER BY due, user LIMIT ?",
        (release, now, limit),
    ).fetchall()
    more = db.execute(
        "SELECT user, attempts FROM work WHERE release = ? AND late IS NOT NULL AND (due IS NULL OR due > ?) ORDER BY late, user LIMIT ?",
        (release, now, limit - len(due)),
    ).fetchall()
    return [*due, *more]


def fill(db: sqlite3.Connection, settings: ServingSettings, release: str, due: int) -> None:
    """Make users with unread events (those that their row does not contain) due in a new release at the time ``due``.

    Users without features in any release are deferred to consecutive turns after this time.
    """
    db.execute(
        f"""INSERT INTO work (release, user, due, late)
        SELECT ?1, user, iif(known, ?2, NULL), iif(known, NULL, ?2 + ?3 * row_number() OVER (PARTITION BY known ORDER BY user)) FROM
            (SELECT u.user, {KNOWN.format("u.user")} AS known FROM users AS u
            LEFT JOIN features AS f ON f.user = u.user AND f.release = ?1 WHERE u.seen > coalesce(f.seen, 0)) WHERE true
        ON CONFLICT DO UPDATE SET due = coalesce(min(due, excluded.due), due, excluded.due), late = coalesce(late, excluded.late)""",
        (release, due, paces(settings)[1]),
    )


def gauges(db: sqlite3.Connection, now: int) -> Gauges:
    """Return the state of the queue and the work list."""
    queued, oldest = db.execute(
        "SELECT coalesce(max(id) - min(id) + 1, 0), (SELECT at FROM queue ORDER BY id LIMIT 1) FROM queue"
    ).fetchone()
    due, first = db.execute("SELECT count(*), min(due) FROM work WHERE due IS NOT NULL AND due <= ?", (now,)).fetchone()
    leased, dead, unreadable, deferred = db.execute(
        """SELECT (SELECT count(*) FROM work WHERE lease IS NOT NULL), (SELECT count(*) FROM work WHERE reason IS NOT NULL),
        (SELECT count(*) FROM unreadable), (SELECT count(*) FROM work WHERE late > ?)""",
        (now,),
    ).fetchone()
    ages = max(0, now - (oldest or now)) / 1e6, max(0, now - (first or now)) / 1e6
    return Gauges(queued, ages[0], due, ages[1], leased, dead, unreadable, deferred)


def repair_clock(db: sqlite3.Connection, settings: ServingSettings, now: int) -> int:
    """See :meth:`taiji.serving.store.Store.repair_clock`."""
    latest = latest_due(settings, now)
    for statement in (
        "UPDATE meta SET value = ?1 WHERE key = 'clock' AND value > ?1",
        "UPDATE idempotency SET at = ?1 WHERE at > ?1",
        "UPDATE queue SET at = ?1 WHERE at > ?1",
        "DELETE FROM beats WHERE at > ?1",
        "DELETE FROM pace WHERE at > ?1",
    ):
        db.execute(statement, (now,))
    due = db.execute(
        """UPDATE work SET due = ?1, late = NULL, lease = NULL, token = NULL, worker = NULL
        WHERE reason IS NULL AND (due > ?2 OR late > ?2 OR lease IS NOT NULL OR EXISTS (SELECT 1 FROM features AS f
            WHERE f.user = work.user AND f.release = work.release
            AND max(json_extract('{' || CAST(head AS TEXT) || '}', '$.as_of'), json_extract('{' || CAST(head AS TEXT) || '}', '$.generated_at')) > ?1))""",
        (now, latest),
    )
    return due.rowcount
