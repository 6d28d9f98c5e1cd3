"""Write the manifest of a finished stage, which lists the files of the stage, and check that these files are unchanged.

All code that reads the artefacts of a stage uses this check, so damage is always reported with the same message.
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
"""Key under which a manifest stores the hash of its other values."""
HASHED_UP_TO = 64 * 2**20
"""Size in bytes up to which a file is always hashed, which takes a twentieth of a second at 1.4 GiB/s. A larger file is
hashed only in a thorough check or if its modification time differs from the recorded one; otherwise only its size is
compared."""


def has_finished_stage(run: Path) -> bool:
    """Return True if a stage of a run has finished."""
    return any(run.glob(f"*/{MANIFEST}"))


def write_manifest(folder: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """Write the manifest of a stage.

    It contains the given values, a record (size, modification time and hash) of every file in the folder, and a
    checksum of the manifest itself.

    Returns:
        the manifest; ``output`` is the content hash of the folder.
    """
    files, output = folder_hashes(folder, leave_out=(MANIFEST,))
    manifest = sealed({**values, "files": files, "output": output})
    write_json(folder / MANIFEST, manifest)
    return manifest


def _demand_rights(path: Path, error: BaseException | None) -> None:
    """Raise an error about permissions, rather than damage, if a file could not be read for lack of permission."""
    if isinstance(error, PermissionError):
        raise ResourceError(
            "Could not read an artefact of a run.",
            where=str(path),
            found=error.strerror,
            fix="change its owner or permissions (ls -l), or call taiji as the user who made the run",
        ) from error


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values as plain JSON types, with their hash."""
    plain: dict[str, Any] = json.loads(json.dumps(values, allow_nan=False))
    return {**plain, CHECKSUM: value_hash(plain)}


def is_sealed(values: Mapping[str, Any]) -> bool:
    """Return True if values contain their own hash and are therefore unchanged."""
    return bool(values.get(CHECKSUM) == value_hash({key: value for key, value in values.items() if key != CHECKSUM}))


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a stage.

    Raises:
        ArtifactError: the manifest is missing, cannot be read, or has been changed.
    """
    path, found = folder / MANIFEST, "a checksum that does not match"
    try:
        manifest = read_json(path)
        # Manifests of earlier versions have neither of these two keys. A single changed byte cannot remove both.
        known = isinstance(manifest, dict) and ("files" in manifest) == (CHECKSUM in manifest)
        if known and (CHECKSUM not in manifest or is_sealed(manifest)):
            return dict(manifest)
    except ArtifactError as error:
        _demand_rights(path, error.__cause__)
        found = error.found or found
    raise ArtifactError(
        "A manifest is missing, damaged or changed.",
        where=str(path),
        expected="a manifest with a matching checksum",
        found=found,
        fix=remake(folder.parent),
    )


def stage_files(folder: Path, pattern: str) -> list[Path]:
    """Return the sorted files of a stage whose relative names match a pattern, without files that the stage did not
    write."""
    found = sorted(folder.glob(pattern))
    listed = read_manifest(folder).get("files") if (folder / MANIFEST).is_file() else None
    return found if listed is None else [path for path in found if str(path.relative_to(folder)) in listed]


class Verifier:
    """Verifier that compares the files of stages with their manifests.

    A file that was hashed is not read again as long as its size and times are unchanged.

    Args:
        thorough: True to hash every file regardless of its size.
    """

    def __init__(self, thorough: bool = False) -> None:
        self.thorough = thorough
        self._verified: set[tuple[str, int, int, int]] = set()

    def damage(self, folder: Path, manifest: Mapping[str, Any]) -> str | None:
        """Return a description of the first file that differs from the manifest, or None if no file differs.

        A manifest of an earlier version does not list files. In this case, the hash of the whole folder is compared.
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
                trusted = size > HASHED_UP_TO and state.st_mtime_ns == record["mtime_ns"] and not self.thorough
                if trusted or seen in self._verified:
                    continue
                if file_hash(path) != record["sha256"]:
                    return f"{name} is damaged (its content has changed)"
            except OSError as error:
                _demand_rights(path, error)
                return f"{name} is missing" if isinstance(error, FileNotFoundError) else f"{name}: {error.strerror}"
            self._verified.add(seen)
        return None

    def _whole(self, folder: Path, manifest: Mapping[str, Any]) -> str | None:
        fits = "output" not in manifest or file_hash(folder, leave_out=(MANIFEST,)) == manifest["output"]
        return None if fits else "a file is damaged (the content of the folder has changed)"

    def demand(self, run: Path, stages: Iterable[str]) -> None:
        """Raise an error if one of the stages of a run is unfinished or damaged.

        Raises:
            ArtifactError: a stage is unfinished or damaged. The message names the stage, the damaged file if there is
                one, and the command that recomputes the stage.
        """
        for stage in stages:
            folder = run / stage
            if not (folder / MANIFEST).is_file():
                raise ArtifactError(f"The stage {stage!r} has not been run.", where=str(run), fix=remake(run))
            if damage := self.damage(folder, read_manifest(folder)):
                raise ArtifactError(
                    f"An artefact of the stage {stage!r} has changed since the run wrote it.",
                    where=str(folder),
                    found=damage,
                    fix=remake(run),
                )

    def demand_whole(self, run: Path, stages: Iterable[str]) -> None:
        """Raise the error of :meth:`demand` if a finished stage is damaged. Unfinished stages are ignored."""
        self.demand(run, [stage for stage in stages if (run / stage / MANIFEST).is_file()])

    def published(self, run: Path, stage: str, name: str) -> Path:
        """Return the path of a file that a stage has copied to the top of its run.

        Raises:
            ArtifactError: the file has changed since the stage published it.
        """
        published, folder = run / name, run / stage
        files = read_manifest(folder).get("files", {}) if (folder / MANIFEST).is_file() else {}
        if name in files and published.is_file() and file_hash(published) != files[name]["sha256"]:
            raise ArtifactError(
                "A file at the top of a run has changed since the stage wrote it.",
                where=str(published),
                expected=f"the same content as when the stage {stage!r} finished",
                fix=remake(run),
            )
        return published
