"""The one writer of artefacts: atomic files and folders, content hashes.

A reader never sees half a file: everything is written beside its destination under a temporary name, flushed to disk
and renamed. Whatever was there before stays whole until the rename.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from taiji.errors import TaijiError

TEMPORARY = ".tmp-"


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn the disk's errors into a message that says which write failed and what is still whole."""
    try:
        yield
    except OSError as error:
        if error.errno not in (
            errno.ENOSPC,
            errno.EDQUOT,
            errno.EACCES,
            errno.EROFS,
            errno.EPERM,
            errno.ENOTDIR,
            errno.EISDIR,
            errno.ENAMETOOLONG,
            errno.EFBIG,
        ):
            raise
        raise TaijiError(
            f"Could not write: {os.strerror(error.errno)}.",
            where=str(path),
            found=f"{shutil.disk_usage(_existing(path)).free / 2**20:.0f} MiB free on that disk",
            fix="make room (or choose another folder) and start again with --resume; earlier artefacts are whole",
        ) from error


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _beside(path: Path) -> Path:
    """A temporary name that no other process uses, on this machine or on another that shares the disk."""
    return path.with_name(f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}-{path.name}")


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the destination's folder; rename it over ``path`` when the block succeeds."""
    path = Path(path)
    temporary = _beside(path)
    try:
        with _explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            _sync(temporary)
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder; rename it to ``path`` (replacing what was there) when the block succeeds."""
    path = Path(path)
    temporary = _beside(path)
    old = temporary.with_name(f"{temporary.name}-old")
    try:
        with _explained(path):
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    _sync(file)
            if path.exists():
                os.replace(path, old)  # a kill between the two renames leaves both, one under another name
            os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if old.exists() and not path.exists():
            os.replace(old, path)
        shutil.rmtree(old, ignore_errors=True)


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON atomically: sorted keys, two spaces, no NaN (a NaN would not be JSON)."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read JSON; a missing or broken file is a :class:`TaijiError` that names it."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        found = error.strerror if isinstance(error, OSError) else str(error)
        raise TaijiError(
            "Could not read JSON.",
            where=str(path),
            expected="a JSON file",
            found=found,
            fix="if a run made it, run that stage again",
        ) from error


def write_parquet(path: str | Path, frame: pl.DataFrame) -> None:
    """Write a frame as Parquet atomically; the same frame gives the same bytes."""
    with atomic_file(path) as temporary:
        frame.write_parquet(temporary, compression="zstd", statistics=True)


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file's bytes, or of a folder's sorted relative names and bytes (temporary files left out)."""
    path = Path(path)
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.is_file() and TEMPORARY not in str(f))
    for file in files:
        if file != path:
            digest.update(str(file.relative_to(path)).encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def value_hash(value: Any) -> str:
    """SHA-256 of a JSON-like value, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
