"""Lock files that only one process at a time can hold."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO

from taiji.core.artifacts import make_folder, writing
from taiji.core.errors import ResourceError


def exclusive(path: Path, message: str, *, where: str | Path, fix: str, wait: bool = False) -> IO[str]:
    """Open and lock a file, creating its folder if necessary, and return the open file.

    The lock is released when this file is closed or the process ends.

    Args:
        path: path of the lock file.
        message, where, fix: parts of the error if another process holds the lock.
        wait: True to wait for the other process instead.

    Raises:
        ResourceError: another process holds the lock, or the file cannot be created.
    """
    make_folder(path.parent)
    with writing(path):
        file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        file.close()
        raise ResourceError(message, where=str(where), fix=fix) from error
    return file
