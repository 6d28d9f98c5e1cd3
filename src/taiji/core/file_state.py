"""State of the user's own files (names, sizes and modification times) for fingerprints.

This module has no heavy imports.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

State = list[tuple[str, int, int]]
"""Name, size in bytes and modification time in nanoseconds of each file."""


def file_state(files: Iterable[Path]) -> State:
    """Return the state of the files that exist. A folder stands for all files in it."""
    every: list[Path] = []
    for file in files:
        if file.is_dir():
            every += sorted(path for path in file.rglob("*") if path.is_file())
        elif file.exists():
            every.append(file)
    return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in every]


def named_files(*values: str | Path | None) -> State:
    """Return the state of the files and folders that settings name, so that changed contents (such as an edited
    template) are detected."""
    return file_state(Path(value).expanduser() for value in values if value)
