"""The file of the SQLite store: its identity, one-number queries, and SQLite's errors in the store's own terms."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from taiji.serving.store import StoreUnavailable


def identity_of(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from another one at its place; None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def one_number(db: sqlite3.Connection, query: str, *values: object) -> int:
    """Return the number that a query answers with."""
    return int(db.execute(query, values).fetchone()[0])


@contextmanager
def translated() -> Iterator[None]:
    """Raise StoreUnavailable in place of SQLite's own errors of a file or a disk."""
    try:
        yield
    except (sqlite3.OperationalError, sqlite3.InternalError) as error:
        raise StoreUnavailable(str(error)) from error
    except sqlite3.DatabaseError as error:
        if type(error) is not sqlite3.DatabaseError:
            raise
        raise StoreUnavailable(str(error)) from error  # a damaged file, which has no class of its own
