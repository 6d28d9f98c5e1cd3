"""Ways in which a file of a run can be damaged, and what a run must make of each."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Iterator
from pathlib import Path


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    place = len(content) // 2
    return content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :]


def replaced(content: bytes) -> bytes:
    return bytes((byte * 7 + place + 1) % 256 for place, byte in enumerate(content))


def emptied(content: bytes) -> bytes:
    return b""


def deleted(content: bytes) -> None:
    return None


WAYS: dict[str, Callable[[bytes], bytes | None]] = {
    way.__name__: way for way in (truncated, flipped, replaced, emptied, deleted)
}


def damage(file: Path, way: str) -> None:
    """Damage a file; the time of its last change stays, as it does where a disk forgets."""
    before, state = file.read_bytes(), file.stat()
    after = WAYS[way](before)
    file.unlink()
    if after is not None:
        file.write_bytes(after)
        os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))


def contents(run: Path, leave_out: Collection[str] = ()) -> dict[str, bytes]:
    """Every file of a run but manifests (they tell times) and the lock."""
    files = [f for f in sorted(run.rglob("*")) if f.is_file() and f.name not in ("manifest.json", ".lock")]
    return {name: f.read_bytes() for f in files if (name := f.relative_to(run).as_posix()) not in leave_out}


def damaged_copies(run: Path, place: Path) -> Iterator[tuple[str, str, Path]]:
    """Copy a run again and again, one file damaged in one way; yields the file, the way and the copy."""
    names = [f.relative_to(run).as_posix() for f in sorted(run.rglob("*")) if f.is_file() and f.name != ".lock"]
    for name in names:
        for way in WAYS:
            copy = shutil.copytree(run, place / run.name)
            damage(copy / name, way)
            yield name, way, copy
            shutil.rmtree(copy)
