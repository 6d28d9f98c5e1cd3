"""Numbers that keep the names of workers unique among the services on one host that share a store.

A worker keeps its name after a restart, so that it can give back the leases of its earlier process. Two services whose
workers have the same names would give back each other's leases. Each service therefore holds a number, by a file lock
that the system releases whenever the process ends.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from pathlib import Path
from typing import IO

from taiji.core.errors import ResourceError

MOST = 64


class Slot:
    """Lowest number that no other running service of the same operating-system user holds for a store.

    Args:
        place: random name of the store (its ``generation``), the same for all services that use it.
        folder: folder of the locks; by default the system's folder of temporary files.

    Raises:
        ResourceError: all numbers are held.
    """

    def __init__(self, place: str, folder: Path | None = None) -> None:
        where = (folder or Path(tempfile.gettempdir())) / f"taiji-serving-{os.getuid()}"
        where.mkdir(mode=0o700, exist_ok=True)
        if where.stat().st_uid != os.getuid():
            raise ResourceError(
                "The folder for the services' lock files belongs to another user.",
                where=str(where),
                fix="delete the folder, or set TMPDIR to another one, the same for all your services on this machine",
            )
        name = hashlib.sha256(place.encode()).hexdigest()[:16]
        for number in range(MOST):
            file = (where / f"{name}-{number}.lock").open("a")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.close()
                continue
            self.number, self._file = number, file
            return
        raise ResourceError(
            "Too many services of this host share a store.",
            where=str(where),
            expected=f"at most {MOST}",
            found=f"{MOST} already running",
        )

    def suffix(self) -> str:
        """Return the suffix of the workers' names; empty for the first service."""
        return f".{self.number}" if self.number else ""

    def close(self) -> None:
        """Release the number."""
        file: IO[str] = self._file
        file.close()
