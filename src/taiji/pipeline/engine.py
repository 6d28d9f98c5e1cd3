"""Runs stages in a run directory: skip what is finished and unchanged, resume what was killed, lose nothing.

Layout of ``runs/<name>/``::

    config.json           the configuration as it was resolved
    <stage>/              finished artefacts and manifest.json
    .work/<stage>/        a stage under way: its partitions, and the fingerprint of what they depend on

A stage writes into ``.work/<stage>`` and is renamed into place when it is whole. Its *fingerprint* covers its own
settings, the seed, the package version and the content hashes of the stages it reads, so a finished stage is skipped
exactly when nothing it depends on changed, and partitions of a killed one are used only when they are of the same job.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, reduce
from operator import getitem
from pathlib import Path
from shlex import quote
from typing import Any

import polars as pl

import taiji
from taiji.config import Config
from taiji.core.artifacts import (
    TEMPORARY,
    atomic_file,
    file_hash,
    make_folder,
    read_json,
    value_hash,
    write_json,
    writing,
)
from taiji.core.errors import TaijiError
from taiji.core.progress import progress
from taiji.language.processes import first_process, processes
from taiji.pipeline.names import STAGE_NAMES
from taiji.pipeline.partitions import LocalMapper, Mapper, Opener, map_rows

MANIFEST = "manifest.json"
TRAINED = {"sft", "alignment"}
"""Stages that several processes can train together."""


@dataclass(frozen=True)
class Stage:
    """One step of the loop.

    Args:
        name: the folder's name and the sub-command's.
        work: computes the stage from a :class:`Context`; returns facts (row counts, …) for the manifest.
        needs: stages whose artefacts it reads.
        settings: sections of the configuration it depends on, by dotted path.
        outside: state of what the stage reads from outside the run (the user's own files), from the configuration.
        publish: artefacts that are also put at the top of the run directory, where people look.
    """

    name: str
    work: Callable[[Context], dict[str, Any]]
    needs: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    outside: Callable[[Config], Any] | None = None
    publish: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """What the stage does, in a sentence."""
        return STAGE_NAMES[self.name]


@dataclass
class Context:
    """What a stage sees: the configuration, its own folder to write to and the finished folders it may read."""

    config: Config
    folder: Path
    """Where the stage's artefacts go; renamed into the run directory when the stage is whole."""
    scratch: Path
    """Partitions and checkpoints that survive a kill; removed when the stage is whole."""
    run: Path
    needs: tuple[str, ...]
    mapper: Mapper = field(default_factory=LocalMapper)
    """Where partitions are computed; no result depends on it."""

    def input(self, stage: str) -> Path:
        """The finished folder of a stage named in ``needs``."""
        if stage not in self.needs:
            raise KeyError(f"stage reads {stage!r} without naming it in its needs {self.needs}")
        return self.run / stage

    def over(
        self,
        rows: pl.DataFrame,
        opener: Opener,
        description: str,
        unit: str,
        *,
        folder: str = "rows",
        size: int | None = None,
        here: bool = False,
    ) -> pl.DataFrame:
        """The outputs of the opened work over partitions of ``rows``, in their order; partitions that are done are not done again.

        Args:
            rows: inputs, in a stable order.
            opener: see :mod:`taiji.pipeline.partitions`.
            description, unit: for the progress display.
            folder: of the partitions; every job of a stage has its own.
            size: rows a partition (default: ``size.chunk``).
            here: compute in this process whatever the run's mapper is.
        """
        with progress(description, len(rows), unit) as update:
            return map_rows(
                LocalMapper() if here else self.mapper,
                opener,
                rows,
                size or self.config.size.chunk,
                self.scratch / folder,
                update,
            )


@dataclass
class Run:
    """A run directory under execution."""

    folder: Path
    config: Config
    stages: Sequence[Stage]
    say: Callable[[str], None] = print
    mapper: Mapper = field(default_factory=LocalMapper)

    def finished(self, stage: Stage) -> bool:
        """Whether the stage's artefacts are there and made from exactly today's inputs and settings."""
        path = self.folder / stage.name / MANIFEST
        whole = path.exists() and all((path.parent / name).exists() for name in stage.publish)
        return whole and read_json(path)["fingerprint"] == self.fingerprint(stage)

    def fingerprint(self, stage: Stage) -> str:
        """Hash of everything the stage's artefacts depend on."""
        return value_hash(self._depends_on(stage))

    def _depends_on(self, stage: Stage) -> dict[str, Any]:
        values = self.config.model_dump(mode="json")
        outside = stage.outside(self.config) if stage.outside else None
        return {
            "stage": stage.name,
            "version": taiji.__version__,
            "seed": self.config.seed,
            "settings": {section: reduce(getitem, section.split("."), values) for section in stage.settings},
            "inputs": {need: self.output_hash(need) for need in stage.needs},
            "outside": value_hash(outside) if outside else None,
        }

    def output_hash(self, name: str) -> str:
        """Content hash of a finished stage, as its manifest has it."""
        path = self.folder / name / MANIFEST
        if not path.exists():
            raise TaijiError(
                f"The stage {name!r} has not been run.",
                where=str(self.folder),
                fix=f"taiji {name} --name {quote(self.folder.name)}"
                + ("" if self.folder.parent == Path("runs") else f" --runs {quote(str(self.folder.parent))}"),
            )
        return str(read_json(path)["output"])

    def execute(self, names: Sequence[str] | None = None) -> None:
        """Run the named stages (default: all) in order, skipping those that are finished and unchanged.

        Under a launcher of several processes only stages that train can be run; the first process keeps the folder, the others help.
        """
        if processes() > 1 and (names is None or set(names) - TRAINED):
            raise TaijiError(
                "Only training is launched in several processes.",
                expected=" or ".join(sorted(TRAINED)),
                found=", ".join(names or ["the whole loop"]),
                fix="`accelerate launch … -m taiji.cli sft CONFIG`, and the other stages without a launcher",
            )
        if not first_process():
            return self._help([stage for stage in self.stages if names and stage.name in names])
        with self._locked():
            write_json(self.folder / "config.json", self.config.model_dump(mode="json"))
            chosen = [stage for stage in self.stages if names is None or stage.name in names]
            for number, stage in enumerate(chosen, start=1):
                if self.finished(stage):
                    self.say(f"[{number}/{len(chosen)}] {stage.name}: unchanged, skipped")
                else:
                    self.say(f"[{number}/{len(chosen)}] {stage.name}: {stage.summary}")
                    self.say(f"[{number}/{len(chosen)}] {stage.name}: done in {self._execute(stage):,.1f} s")
                for name in stage.publish:
                    with atomic_file(self.folder / name) as temporary:
                        shutil.copyfile(self.folder / stage.name / name, temporary)

    def _help(self, stages: Sequence[Stage]) -> None:
        """Take part in the first process' training: same inputs, same checkpoints, a folder that is thrown away."""
        for stage in stages:
            if not self.finished(stage):
                with tempfile.TemporaryDirectory(prefix="taiji-help-") as name:
                    scratch = (self.folder / ".work" / stage.name / "scratch").absolute()
                    stage.work(Context(self.config, Path(name), scratch, self.folder.absolute(), stage.needs))

    def _execute(self, stage: Stage) -> float:
        depends_on, work = self._depends_on(stage), self.folder / ".work" / stage.name
        fingerprint, label = value_hash(depends_on), work / "fingerprint.json"
        if not (label.exists() and read_json(label)["fingerprint"] == fingerprint):
            shutil.rmtree(work, ignore_errors=True)
        spent = read_json(label)["seconds"] if label.exists() else 0.0
        write_json(label, {"fingerprint": fingerprint, "seconds": spent})
        out = work / "out"
        if not (out / MANIFEST).exists():  # written last: where it is, the stage was killed during its final rename
            shutil.rmtree(out, ignore_errors=True)
            make_folder(out)
            make_folder(work / "scratch")
            start = time.monotonic()
            try:
                # Absolute paths: a worker on another machine has another working directory.
                paths = out.absolute(), (work / "scratch").absolute(), self.folder.absolute()
                facts = stage.work(Context(self.config, *paths, stage.needs, self.mapper))
            finally:
                spent += time.monotonic() - start
                with suppress(
                    TaijiError
                ):  # on a full disk the error under way matters, the time of this attempt does not
                    write_json(label, {"fingerprint": fingerprint, "seconds": spent})
            for leftover in out.rglob(f"{TEMPORARY}*"):
                leftover.unlink()
            manifest = {
                **depends_on,
                "fingerprint": fingerprint,
                "output": file_hash(out),
                "code": source_hash(),
                "finished": datetime.now(UTC).isoformat(timespec="seconds"),
                "seconds": round(spent, 3),
                "facts": facts,
            }
            write_json(out / MANIFEST, manifest)
        final, old = self.folder / stage.name, work / "old"
        if final.exists():
            shutil.rmtree(old, ignore_errors=True)
            os.replace(final, old)
        os.replace(out, final)
        shutil.rmtree(work)
        return float(spent)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        make_folder(self.folder)
        with writing(self.folder / ".lock"):
            file = (self.folder / ".lock").open("w")
        with file as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise TaijiError(
                    "Another process is working on this run.",
                    where=str(self.folder),
                    fix="wait for it, or choose another --name",
                ) from error
            yield


@cache
def source_hash() -> str:
    """Hash of the package's own source files, recorded with every artefact."""
    folder = Path(taiji.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]
