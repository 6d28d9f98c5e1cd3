"""Tables of the SQLite store, and their upgrade from older versions.

A new version of the schema only adds tables and columns. Older processes can therefore continue during an upgrade, and
the upgrade can be reverted.
"""

from __future__ import annotations

import sqlite3

from taiji.serving.store import LEAST_READER, SCHEMA, demand_readable

TABLES_SQL = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS idempotency (key TEXT PRIMARY KEY, digest TEXT, at INTEGER) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS idempotency_at ON idempotency (at);
CREATE TABLE IF NOT EXISTS queue (id INTEGER PRIMARY KEY AUTOINCREMENT, user TEXT, event BLOB, at INTEGER, source TEXT);
CREATE INDEX IF NOT EXISTS queue_user ON queue (user);
CREATE TABLE IF NOT EXISTS unreadable (id INTEGER PRIMARY KEY, user TEXT, event BLOB, at INTEGER, reason TEXT);
CREATE TABLE IF NOT EXISTS users (user TEXT PRIMARY KEY, seen INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS history (user TEXT, time INTEGER, id TEXT, event BLOB, PRIMARY KEY (user, time, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS features (release TEXT, user TEXT, version INTEGER, seen INTEGER, neighbour TEXT, head BLOB, tail BLOB,
    PRIMARY KEY (user, release));
CREATE INDEX IF NOT EXISTS features_neighbour ON features (neighbour) WHERE neighbour IS NOT NULL;
CREATE TABLE IF NOT EXISTS work (release TEXT, user TEXT, due INTEGER, lease INTEGER, token TEXT, worker TEXT,
    attempts INTEGER NOT NULL DEFAULT 0, reason TEXT, late INTEGER, PRIMARY KEY (user, release)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS work_due ON work (release, due) WHERE due IS NOT NULL;
CREATE INDEX IF NOT EXISTS work_lease ON work (release, lease) WHERE lease IS NOT NULL;
CREATE INDEX IF NOT EXISTS work_late ON work (release, late) WHERE late IS NOT NULL;
CREATE INDEX IF NOT EXISTS work_dead ON work (release) WHERE reason IS NOT NULL;
CREATE TABLE IF NOT EXISTS pace (release TEXT, source TEXT, known INTEGER, at INTEGER, PRIMARY KEY (release, source, known)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS beats (process TEXT PRIMARY KEY, at INTEGER, body TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS releases (name TEXT PRIMARY KEY, body TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS erased (digest TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER) WITHOUT ROWID;
"""
ADDED = (("queue", "source", "TEXT"), ("work", "late", "INTEGER"))
"""Columns that were added after version 1."""


def prepare(db: sqlite3.Connection, path: str) -> None:
    """Create the tables, or upgrade tables of an older version, in one transaction.

    Raises:
        ArtifactError: a newer version of taiji wrote the file, and marked it as unusable for this version.
    """
    db.execute("BEGIN IMMEDIATE")
    try:
        _demand_readable(db, path)
        for table, column, kind in ADDED:
            there = [name for _, name, *_ in db.execute(f"PRAGMA table_info({table})")]
            if there and column not in there:
                db.execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind}")
        for statement in filter(str.strip, TABLES_SQL.split(";")):
            db.execute(statement)
        for name, value in (("schema", SCHEMA), ("schema_reader", LEAST_READER)):
            db.execute(
                "INSERT INTO meta VALUES (?, ?) ON CONFLICT DO UPDATE SET value = max(value, excluded.value)",
                (name, value),
            )
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _demand_readable(db: sqlite3.Connection, path: str) -> None:
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
        return
    found = dict(db.execute("SELECT key, value FROM meta WHERE key IN ('schema', 'schema_reader')"))
    demand_readable(int(found.get("schema", 1)), int(found.get("schema_reader", 1)), path)
