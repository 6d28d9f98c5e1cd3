"""Files that one process at a time may hold."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO

from taiji.core.artifacts import make_folder, writing
from taiji.core.errors import ResourceError


def exclusive(path: Path, message: str, *, where: str | Path, fix: str) -> IO[str]:
    """Open and lock a file, creating its folder if needed; closing it, or the end of the process, releases the lock.

    Args:
        path: path of the lock. message, where, fix: what to say when another holds it.

    Raises:
        ResourceError: another holds it.
    """
    make_folder(path.parent)
    with writing(path):
        file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise ResourceError(message, where=str(where), fix=fix) from error
    return file
