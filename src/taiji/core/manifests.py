"""Manifests of finished stages: which files a stage left, and the check that they are still what it wrote.

Every reader of a stage's artefacts checks here first, so damage is found in one place and reported in one message.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from taiji.core.advice import remake
from taiji.core.artifacts import file_hash, folder_hashes, read_json, value_hash, write_json
from taiji.core.errors import ArtifactError, ResourceError

MANIFEST = "manifest.json"
CHECKSUM = "checksum"
"""Key of a manifest that holds the hash of its other values."""
HASHED_UP_TO = 64 * 2**20
"""Bytes up to which a file is always hashed: a twentieth of a second at 1.4 GiB/s. A larger one is hashed when its time of
change is not the recorded one, and in a thorough check; otherwise its size has to do."""


def write_manifest(folder: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """Write a stage's manifest: the values, every file of the folder with size, time and hash, and the hash of all that.

    Returns:
        what was written; ``output`` is the content hash of the folder.
    """
    files, output = folder_hashes(folder, leave_out=(MANIFEST,))
    manifest = sealed({**values, "files": files, "output": output})
    write_json(folder / MANIFEST, manifest)
    return manifest


def _demand_rights(path: Path, error: BaseException | None) -> None:
    """Raise an error if permission to read a file is missing, since the file may well be intact."""
    if isinstance(error, PermissionError):
        raise ResourceError(
            "Could not read an artefact of the run.",
            where=str(path),
            found=error.strerror,
            fix="change its owner or its rights (ls -l), or call taiji as the user who made the run",
        ) from error


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values as JSON has them, with their own hash."""
    plain: dict[str, Any] = json.loads(json.dumps(values, allow_nan=False))
    return {**plain, CHECKSUM: value_hash(plain)}


def is_sealed(values: Mapping[str, Any]) -> bool:
    """Return True if values hold their own hash, so that nobody has changed them."""
    return bool(values.get(CHECKSUM) == value_hash({key: value for key, value in values.items() if key != CHECKSUM}))


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read a stage's manifest.

    Raises:
        ArtifactError: it is missing, cannot be read, or is not what was written.
    """
    path, found = folder / MANIFEST, "other values"
    try:
        manifest = read_json(path)
        # Whatever one changed byte does to the two keys, it cannot take both away: that is how earlier versions wrote.
        known = isinstance(manifest, dict) and ("files" in manifest) == (CHECKSUM in manifest)
        if known and (CHECKSUM not in manifest or is_sealed(manifest)):
            return dict(manifest)
    except ArtifactError as error:
        _demand_rights(path, error.__cause__)
        found = error.found or found
    raise ArtifactError(
        "A manifest is not what the stage wrote.",
        where=str(path),
        expected="a manifest whose checksum fits",
        found=found,
        fix=remake(folder.parent),
    )


def stage_files(folder: Path, pattern: str) -> list[Path]:
    """Return the files of a stage whose relative names match, in order; files that the stage did not write are left out."""
    found = sorted(folder.glob(pattern))
    listed = read_manifest(folder).get("files") if (folder / MANIFEST).is_file() else None
    return found if listed is None else [path for path in found if str(path.relative_to(folder)) in listed]


class Verifier:
    """Compares stages with their manifests; a file that was hashed is not read again while its size and times stay.

    Args:
        thorough: hash every file, whatever its size.
    """

    def __init__(self, thorough: bool = False) -> None:
        self.thorough = thorough
        self._sound: set[tuple[str, int, int, int]] = set()

    def damage(self, folder: Path, manifest: Mapping[str, Any]) -> str | None:
        """Return a description of the first file that differs from the manifest, or None.

        A manifest of an earlier version lists no files; the content of the whole folder is compared instead.
        """
        if "files" not in manifest:
            return self._whole(folder, manifest)
        for name, record in manifest["files"].items():
            path, size = folder / name, int(record["size"])
            try:
                state = path.stat()
                if state.st_size != size:
                    return f"{name} is damaged ({state.st_size:,} bytes, {size:,} expected)"
                seen = (str(path), state.st_size, state.st_mtime_ns, state.st_ctime_ns)
                believed = size > HASHED_UP_TO and state.st_mtime_ns == record["mtime_ns"] and not self.thorough
                if believed or seen in self._sound:
                    continue
                if file_hash(path) != record["sha256"]:
                    return f"{name} is damaged (other content than was written)"
            except OSError as error:
                _demand_rights(path, error)
                return f"{name} is missing" if isinstance(error, FileNotFoundError) else f"{name}: {error.strerror}"
            self._sound.add(seen)
        return None

    def _whole(self, folder: Path, manifest: Mapping[str, Any]) -> str | None:
        fits = "output" not in manifest or file_hash(folder, leave_out=(MANIFEST,)) == manifest["output"]
        return None if fits else "a file is damaged (the folder has other content than was written)"

    def demand(self, run: Path, stages: Iterable[str]) -> None:
        """Reject a run in which one of the stages is unfinished or damaged.

        Raises:
            ArtifactError: which stage, which file, and the command that makes it again.
        """
        for stage in stages:
            folder = run / stage
            if not (folder / MANIFEST).is_file():
                raise ArtifactError(f"The stage {stage!r} has not been run.", where=str(run), fix=remake(run))
            if damage := self.damage(folder, read_manifest(folder)):
                raise ArtifactError(
                    f"An artefact of the stage {stage!r} is not what the run wrote.",
                    where=str(folder),
                    found=damage,
                    fix=remake(run),
                )

    def demand_whole(self, run: Path, stages: Iterable[str]) -> None:
        """Reject a run in which one of the stages is finished but damaged; see :meth:`demand`."""
        self.demand(run, [stage for stage in stages if (run / stage / MANIFEST).is_file()])

    def published(self, run: Path, stage: str, name: str) -> Path:
        """Return a file that a stage put at the top of its run.

        Raises:
            ArtifactError: it is no longer the file that the stage published.
        """
        shown, folder = run / name, run / stage
        files = read_manifest(folder).get("files", {}) if (folder / MANIFEST).is_file() else {}
        if name in files and shown.is_file() and file_hash(shown) != files[name]["sha256"]:
            raise ArtifactError(
                "A file at the top of the run is not what the stage wrote.",
                where=str(shown),
                expected=f"the same content as when the stage {stage!r} was done",
                fix=remake(run),
            )
        return shown
