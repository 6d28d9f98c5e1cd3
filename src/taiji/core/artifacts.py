"""Write artefacts atomically, and compute content hashes. All artefacts are written by this module.

A reader never sees a partial file: everything is written under a temporary name next to its destination, flushed to
disk, and renamed. The previous content stays intact until the rename.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from taiji.core.errors import ArtifactError, NoSpace, ResourceError
from taiji.core.foreign_json import parsed

TEMPORARY = ".tmp-"
DAMAGED = "if the file belongs to a run, recompute damaged and missing parts with taiji run --name RUN --resume"


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Convert a failed write to ``path`` into an error with the cause and advice.

    Raises:
        NoSpace: the disk or the quota is full.
        ResourceError: there is no permission, the disk is read-only, a file is in the place of a folder or vice versa,
            or the name is too long.
    """
    path = Path(path)
    try:
        yield
    except OSError as error:
        # A missing file (ENOENT) is an internal error, except in folders such as /proc, where it means that the
        # temporary file could not be created.
        not_creatable = error.errno == errno.ENOENT and TEMPORARY in str(error.filename)
        if error.errno not in _REFUSALS and not not_creatable:
            raise
        raise _write_error(path, error.errno) from error


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSALS = (
    *_FULL,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
)


def _write_error(path: Path, number: int | None) -> ResourceError:
    """Return the error to raise for an ``errno`` that occurred while writing ``path``."""
    message, where, existing = f"Could not write: {os.strerror(number or 0)}.", str(path), _existing(path)
    if number in _FULL:
        return NoSpace(
            message,
            where=where,
            found=f"{shutil.disk_usage(existing).free / 2**20:.0f} MiB free on that disk",
            fix="free some space, or choose another folder; files that were finished before are intact",
        )
    if number == errno.ENAMETOOLONG:
        return ResourceError(message, where=where, fix="choose a shorter name")
    if number in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
        folder = number == errno.EISDIR
        return ResourceError(
            message,
            where=where,
            expected="a file, or an unused name" if folder else "a folder",
            found=f"{existing} is {'a folder' if existing.is_dir() else 'a file'}",
            fix="choose another name" if folder else "choose another folder",
        )
    if number == errno.EROFS:
        return ResourceError(
            message, where=where, found="a disk that is mounted read-only", fix="choose a folder on another disk"
        )
    if number == errno.ENOENT:
        return ResourceError(
            message, where=where, found=f"{existing} does not accept new files", fix="choose another folder"
        )
    return ResourceError(
        message,
        where=where,
        found=f"{existing} is not writable for this user",
        fix="choose another folder, or change its owner, permissions or attributes (ls -ld, lsattr -d)",
    )


def _existing(path: Path) -> Path:
    """Return the path if it exists, or its nearest existing parent."""
    while not os.path.lexists(path) and path != path.parent:
        path = path.parent
    return path


def make_folder(path: str | Path) -> Path:
    """Create a folder and its parents unless they exist, and return its path.

    Raises:
        ResourceError: the folder cannot be created; the message gives the reason.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno not in (*_REFUSALS, errno.EEXIST, errno.ENOENT):
            raise
        raise _write_error(path, error.errno) from error
    return path


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _beside(path: Path) -> Path:
    """Return a temporary path in the same folder.

    It is unique among all processes, including those on other machines that share the disk.
    """
    return path.with_name(f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}-{path.name}")


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of the destination, and rename it to ``path`` if the block succeeds."""
    path = Path(path)
    temporary = _beside(path)
    make_folder(path.parent)
    try:
        with writing(path):
            yield temporary
            _sync(temporary)
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder, and rename it to ``path`` (replacing an existing folder) if the block succeeds."""
    path = Path(path)
    temporary = _beside(path)
    old = temporary.with_name(f"{temporary.name}-old")
    make_folder(path.parent)
    try:
        with writing(path):
            temporary.mkdir()
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    _sync(file)
            if path.exists():
                os.replace(
                    path, old
                )  # if the process is killed between the two renames, both folders remain under temporary names
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
    """Write JSON atomically, with sorted keys and an indentation of two spaces. NaN is rejected, because it is not
    valid JSON."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read JSON.

    Raises:
        ArtifactError: the file is missing or broken.
    """
    try:
        return parsed(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        found = error.strerror if isinstance(error, OSError) else str(error)
        raise ArtifactError(
            "Could not read JSON.",
            where=str(path),
            expected="a JSON file",
            found=found,
            fix=DAMAGED,
        ) from error


def write_parquet(path: str | Path, frame: pl.DataFrame) -> None:
    """Write a frame as Parquet atomically. The same frame gives the same bytes."""
    with atomic_file(path) as temporary:
        frame.write_parquet(temporary, compression="zstd", statistics=True)


def read_parquet(path: str | Path, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Read Parquet.

    Raises:
        ArtifactError: the file is missing or cannot be read.
    """
    try:
        return pl.read_parquet(path, columns=list(columns) if columns else None)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ArtifactError(
            "Could not read a table.",
            where=str(path),
            expected="a Parquet file",
            found=str(error).splitlines()[0],
            fix=DAMAGED,
        ) from error


def file_hash(path: str | Path, leave_out: Collection[str] = ()) -> str:
    """Return the SHA-256 of a file or folder.

    For a folder, it covers the relative names and bytes of all files except temporary ones, sorted by path.

    Args:
        path: file or folder.
        leave_out: relative names of files in the folder to ignore.
    """
    path = Path(path)
    if not path.is_file():
        return folder_hashes(path, leave_out)[1]
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def folder_hashes(folder: Path, leave_out: Collection[str] = ()) -> tuple[dict[str, dict[str, int | str]], str]:
    """Return a record (size, modification time and SHA-256) of each file in a folder by relative name, and the
    :func:`file_hash` of the folder.
    """
    whole, files = hashlib.sha256(), dict[str, dict[str, int | str]]()
    for file in sorted(f for f in folder.rglob("*") if f.is_file()):
        name = str(file.relative_to(folder))  # not the full path, because the folder may be temporary
        if name in leave_out or TEMPORARY in name:
            continue
        whole.update(name.encode())
        own, state = hashlib.sha256(), file.stat()
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                own.update(block)
                whole.update(block)
        files[name] = {"size": state.st_size, "mtime_ns": state.st_mtime_ns, "sha256": own.hexdigest()}
    return files, whole.hexdigest()


def value_hash(value: Any) -> str:
    """Return the SHA-256 of a JSON value, which does not depend on the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
