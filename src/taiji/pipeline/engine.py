"""Runs stages in a run directory: skip what is finished and unchanged, resume what was killed, lose nothing.

Layout of ``runs/<name>/``::

    config.json           the configuration as it was resolved
    <stage>/              finished artefacts and manifest.json; of a parametrised stage <stage>-<variant>/
    .work/<stage>/        a stage under way: its partitions, and the fingerprint of what they depend on

A stage writes into ``.work/<stage>`` and is renamed into place when it is whole. Its *fingerprint* covers its own
settings and parameters, the seed, the package version and the content hashes of the stages it reads, so a finished stage is skipped
exactly when nothing it depends on changed, and partitions of a killed one are used only when they are of the same job.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
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
from taiji.core.component import foreign_code
from taiji.core.errors import ArtifactError, ConfigError, ResourceError, TaijiError
from taiji.core.progress import progress
from taiji.language.processes import first_process, processes
from taiji.pipeline.partitions import LocalMapper, Mapper, WorkerFactory, map_rows
from taiji.pipeline.recipes import STAGE_NAMES
from taiji.pipeline.stage import Stage

MANIFEST = "manifest.json"


@dataclass
class Context:
    """View of a stage: the configuration, its own folder to write to and the finished folders it may read."""

    config: Config
    folder: Path
    """Folder for the stage's artefacts; renamed into the run directory when the stage is whole."""
    scratch: Path
    """Partitions and checkpoints that survive a kill; removed when the stage is whole."""
    run: Path
    needs: tuple[str, ...]
    mapper: Mapper = field(default_factory=LocalMapper)
    """The machines that compute partitions; no result depends on them."""
    base: Path | None = None
    """Run directory that holds the stages which are not in ``run``: a study reads those of the run that it studies."""

    def input(self, stage: str) -> Path:
        """Return the finished folder of a stage named in ``needs``."""
        if stage not in self.needs:
            raise KeyError(f"stage reads {stage!r} without naming it in its needs {self.needs}")
        return stage_folder(stage, self.run, self.base)

    def over(
        self,
        rows: pl.DataFrame,
        factory: WorkerFactory,
        description: str,
        unit: str,
        *,
        folder: str = "rows",
        size: int | None = None,
        here: bool = False,
    ) -> pl.DataFrame:
        """Return the outputs of a worker over partitions of ``rows``, in their order; partitions that are done are not done again.

        Args:
            rows: inputs, in a stable order.
            factory: see :mod:`taiji.pipeline.partitions`.
            description, unit: for the progress display.
            folder: of the partitions; every job of a stage has its own.
            size: rows per partition (default: ``size.chunk``).
            here: compute in this process whatever the run's mapper is.
        """
        with progress(description, len(rows), unit) as update:
            return map_rows(
                LocalMapper() if here else self.mapper,
                factory,
                rows,
                size or self.config.size.chunk,
                self.scratch / folder,
                update,
            )


def made_by(kind: type) -> str:
    """Return a class' import path, and for a class of another package the hash of its module's file, which may change."""
    name = f"{kind.__module__}:{kind.__qualname__}"
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    ours = kind.__module__.partition(".")[0] == "taiji"
    return name if ours or file is None else f"{name} {file_hash(file)[:16]}"


def stage_folder(stage: str, run: Path, base: Path | None) -> Path:
    """Return the folder of a finished stage: the run's own, or the one of the run that it builds on."""
    own = run / stage
    return own if base is None or (own / MANIFEST).exists() else base / stage


@dataclass
class Run:
    """A run directory under execution."""

    folder: Path
    config: Config
    stages: Sequence[Stage]
    say: Callable[[str], None] = print
    mapper: Mapper = field(default_factory=LocalMapper)
    base: Path | None = None
    """A finished run whose stages are read where this one has none of that name."""

    def finished(self, stage: Stage) -> bool:
        """Return True if the stage's artefacts are there and made from exactly today's inputs and settings."""
        path = self.folder / stage.key / MANIFEST
        whole = path.exists() and all((path.parent / name).exists() for name in stage.publish)
        return whole and read_json(path)["fingerprint"] == self.fingerprint(stage)

    def fingerprint(self, stage: Stage) -> str:
        """Return the hash of everything the stage's artefacts depend on."""
        return value_hash(self._depends_on(stage))

    def _depends_on(self, stage: Stage) -> dict[str, Any]:
        config = stage.configured(self.config)
        values, outside, parameters = config.model_dump(mode="json"), stage.outside(config), stage.parameters()
        sections = (*stage.settings, *([stage.name] if stage.Settings else []))
        settings = {section: reduce(getitem, section.split("."), values) for section in sections}
        code = foreign_code(settings)
        return {
            "stage": stage.key,
            "class": made_by(type(stage)),
            "version": taiji.__version__,
            "seed": config.seed,
            "settings": settings,
            **({"foreign code": code} if code else {}),
            **({"parameters": parameters} if parameters else {}),
            "inputs": {need: self.output_hash(need) for need in stage.needs},
            "outside": value_hash(outside) if outside else None,
        }

    def output_hash(self, key: str) -> str:
        """Return the content hash of a finished stage, as its manifest has it."""
        path = stage_folder(key, self.folder, self.base) / MANIFEST
        if not path.exists():
            home = self.base or self.folder
            raise ArtifactError(
                f"The stage {key!r} has not been run.",
                where=str(home),
                fix=f"taiji {key if key in STAGE_NAMES else f'stage {key}'} --name {quote(home.name)}"
                + ("" if home.parent == Path("runs") else f" --runs {quote(str(home.parent))}"),
            )
        return str(read_json(path)["output"])

    def execute(self, names: Sequence[str] | None = None) -> None:
        """Run the named stages (default: all) in order, skipping those that are finished and unchanged.

        Under a launcher of several processes only stages that train can be run; the first process keeps the folder, the others help.

        Raises:
            ConfigError: a stage is unknown, or may not be launched in several processes.
        """
        unknown = set(names or ()) - {stage.key for stage in self.stages}
        if unknown:
            raise ConfigError(
                "The run has no such stage.",
                expected=", ".join(stage.key for stage in self.stages),
                found=", ".join(sorted(unknown)),
                fix="check the name; a stage of another package has to be named under `stages` in the configuration",
            )
        chosen = [stage for stage in self.stages if names is None or stage.key in names]
        if processes() > 1 and not all(stage.distributed for stage in chosen):
            raise ConfigError(
                "Only training is launched in several processes.",
                expected=" or ".join(stage.key for stage in self.stages if stage.distributed),
                found=", ".join(names or ["the whole loop"]),
                fix="`accelerate launch … -m taiji.cli sft CONFIG`, and the other stages without a launcher",
            )
        if not first_process():
            return self._help(chosen)
        with self._locked():
            write_json(self.folder / "config.json", self.config.model_dump(mode="json"))
            for number, stage in enumerate(chosen, start=1):
                place = f"[{number}/{len(chosen)}] {stage.key}"
                if self.finished(stage):
                    self.say(f"{place}: unchanged, skipped")
                else:
                    self.say(f"{place}: {stage.summary}")
                    self.say(f"{place}: done in {self._execute(stage):,.1f} s")
                for name in stage.publish:
                    with atomic_file(self.folder / name) as temporary:
                        shutil.copyfile(self.folder / stage.key / name, temporary)

    def _help(self, stages: Sequence[Stage]) -> None:
        """Take part in the first process' training: same inputs, same checkpoints, a folder that is thrown away."""
        for stage in stages:
            if not self.finished(stage):
                with tempfile.TemporaryDirectory(prefix="taiji-help-") as name:
                    scratch = (self.folder / ".work" / stage.key / "scratch").absolute()
                    stage.run(self._context(stage, Path(name), scratch))

    def _context(self, stage: Stage, out: Path, scratch: Path) -> Context:
        """Return what the stage sees, in absolute paths: a worker on another machine has another working directory."""
        return Context(
            stage.configured(self.config),
            out.absolute(),
            scratch.absolute(),
            self.folder.absolute(),
            stage.needs,
            self.mapper,
            self.base.absolute() if self.base else None,
        )

    def _execute(self, stage: Stage) -> float:
        depends_on, work = self._depends_on(stage), self.folder / ".work" / stage.key
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
                facts = stage.run(self._context(stage, out, work / "scratch"))
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
        final, old = self.folder / stage.key, work / "old"
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
                raise ResourceError(
                    "Another process is working on this run.",
                    where=str(self.folder),
                    fix="wait for it, or choose another --name",
                ) from error
            yield


@cache
def source_hash() -> str:
    """Return the hash of the package's own source files, recorded with every artefact."""
    folder = Path(taiji.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]
