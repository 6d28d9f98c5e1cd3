"""State of the user's own files, which fingerprints cover. Free of heavy imports."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

State = list[tuple[str, int, int]]
"""Name, size and modification time of each file."""


def state_of(files: Iterable[Path]) -> State:
    """Return the state of files; a folder stands for the files below it."""
    every = [
        f for file in files for f in ([file] if file.is_file() else sorted(p for p in file.rglob("*") if p.is_file()))
    ]
    return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in every]


def named_files(*values: str | Path | None) -> State:
    """Return the state of the files and folders that settings name, where they name any: an edited template counts."""
    files = [Path(value).expanduser() for value in values if value]
    return state_of(file for file in files if file.exists())
