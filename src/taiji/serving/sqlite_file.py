"""Helpers for the SQLite store: identity of its file, queries for one number, and translation of SQLite's errors."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from taiji.serving.store import StoreUnavailable


def identity_of(path: Path) -> tuple[int, int] | None:
    """Return a file's device and inode number, which change if the file is replaced; None if there is no file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def one_number(db: sqlite3.Connection, query: str, *values: object) -> int:
    """Return the first column of the first row of a query's result as an integer."""
    return int(db.execute(query, values).fetchone()[0])


@contextmanager
def translated() -> Iterator[None]:
    """Raise StoreUnavailable instead of SQLite's errors about a file or a disk."""
    try:
        yield
    except (sqlite3.OperationalError, sqlite3.InternalError) as error:
        raise StoreUnavailable(str(error)) from error
    except sqlite3.DatabaseError as error:
        if type(error) is not sqlite3.DatabaseError:
            raise
        raise StoreUnavailable(str(error)) from error  # a damaged file, which has no exception class of its own
