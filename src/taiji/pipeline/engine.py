"""Execute stages in a run directory: skip stages that are finished and unchanged, and resume interrupted ones.

Layout of ``runs/<name>/``::

    config.json           the resolved configuration
    <stage>/              finished artefacts and manifest.json; <stage>-<variant>/ for a parametrised stage
    .work/<stage>/        a stage in progress: output, partitions, checkpoints, and the fingerprint of their dependencies

A stage writes into ``.work/<stage>/out``, which is renamed to ``<stage>`` when the stage is complete. The *fingerprint*
of a stage covers its class, settings and parameters, the seed, the package version, the content hashes of the stages
that it reads, and the state of external files and of code of other packages. A finished stage is skipped if and only if
none of its dependencies has changed, its files are intact (:mod:`taiji.core.manifests`), and it is not forced. The
partitions of a killed stage are reused only if its fingerprint is still the same. Before a stage reads the artefacts of
another stage, the engine compares them with the manifest of that stage.
"""

from __future__ import annotations

import hashlib
import json
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
from typing import Any

import polars as pl

import taiji
from taiji.config import Config
from taiji.core.advice import remake, resume_command, run_options
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
from taiji.core.errors import ArtifactError, ConfigError, InputError, TaijiError
from taiji.core.locks import exclusive
from taiji.core.manifests import MANIFEST, Verifier, read_manifest, write_manifest
from taiji.core.process_memory import give_back_memory
from taiji.core.progress import progress
from taiji.language.processes import first_process, processes
from taiji.pipeline.changes import changes
from taiji.pipeline.partitions import LocalMapper, Mapper, WorkerFactory, map_rows
from taiji.pipeline.recipes import STAGE_NAMES
from taiji.pipeline.stage import Stage

LABEL = "fingerprint.json"
"""File in ``.work/<stage>`` with the fingerprint of the work in progress, the seconds spent so far, and ``forced:
true`` if the stage was forced."""
LONG = 5.0
"""After a stage that ran for longer than this many seconds, memory is returned to the system, which takes a few
tenths of a second."""


@dataclass
class Context:
    """A stage's view of the run: the configuration, its output folder, and the finished folders it may read."""

    config: Config
    folder: Path
    """Folder for the stage's artefacts; renamed into the run directory when the stage is complete."""
    scratch: Path
    """Partitions and checkpoints that survive a kill; removed when the stage is complete."""
    run: Path
    needs: tuple[str, ...]
    mapper: Mapper = field(default_factory=LocalMapper)
    """Mapper that computes partitions; results do not depend on it."""
    base: Path | None = None
    """Run directory in which stages that are missing from ``run`` are looked up, such as the run on which a study is
    based."""

    def input(self, stage: str) -> Path:
        """Return the finished folder of a stage named in ``needs``."""
        if stage not in self.needs:
            raise KeyError(f"the stage reads {stage!r}, which is missing from its needs {self.needs}")
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
        """Map a worker over partitions of ``rows``, and return the outputs in the order of the rows. Finished
        partitions are not recomputed.

        Args:
            rows: inputs, in a stable order.
            factory: worker factory; see :mod:`taiji.pipeline.partitions`.
            description, unit: texts for the progress display.
            folder: name of the folder of the partitions, different for each job of a stage.
            size: rows per partition (default: ``size.chunk``).
            here: True to compute in this process, regardless of the mapper of the run.
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
    """Return the import path of a class, and the hash of its module file if it belongs to another package."""
    name = f"{kind.__module__}:{kind.__qualname__}"
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    ours = kind.__module__.partition(".")[0] == "taiji"
    return name if ours or file is None else f"{name} {file_hash(file)[:16]}"


def stage_folder(stage: str, run: Path, base: Path | None) -> Path:
    """Return the folder of a stage: in the run if the stage is finished there or there is no base run, otherwise in the
    base run."""
    own = run / stage
    return own if base is None or (own / MANIFEST).exists() else base / stage


@dataclass
class Run:
    """Run directory whose stages are executed."""

    folder: Path
    config: Config
    stages: Sequence[Stage]
    say: Callable[[str], None] = print
    mapper: Mapper = field(default_factory=LocalMapper)
    base: Path | None = None
    """Finished run whose stages replace those that are missing here."""
    verifier: Verifier = field(default_factory=Verifier)
    """Check of artefacts before they are read or reused."""
    _missing_sources: dict[str, str] = field(default_factory=dict, init=False, repr=False)
    """Stages whose external files no longer exist, with the missing files."""

    def finished(self, stage: Stage) -> bool:
        """Return True if the artefacts of a stage are complete and made from the current inputs and settings."""
        return self.reason_to_run(stage) is None

    def reason_to_run(self, stage: Stage) -> str | None:
        """Return the reason to run a stage: an empty string if it has never run, None if it is up to date."""
        folder = self.folder / stage.key
        if not (folder / MANIFEST).exists():
            return "its manifest is missing" if folder.exists() else ""
        if self._label(stage).get("forced"):
            return "requested with --force"
        try:
            manifest = read_manifest(folder)
        except ArtifactError:
            return "its manifest is damaged"
        if damage := self.verifier.damage(folder, manifest):
            return damage
        missing = [name for name in stage.publish if not (folder / name).exists()]
        if missing:
            return f"{missing[0]} is missing"
        depends_on = self._depends_on(stage)
        return None if manifest.get("fingerprint") == value_hash(depends_on) else changes(manifest, depends_on)

    def fingerprint(self, stage: Stage) -> str:
        """Return the hash of everything on which the artefacts of a stage depend."""
        return value_hash(self._depends_on(stage))

    def _depends_on(self, stage: Stage) -> dict[str, Any]:
        config = stage.configured(self.config)
        values, parameters = config.model_dump(mode="json"), stage.parameters()
        sections = (*stage.settings, *([stage.name] if stage.Settings else []))
        settings = {section: reduce(getitem, section.split("."), values) for section in sections}
        code = foreign_code([settings, parameters])
        return {
            "stage": stage.key,
            "class": made_by(type(stage)),
            "version": taiji.__version__,
            "seed": config.seed,
            "settings": settings,
            **({"foreign code": code} if code else {}),
            **({"parameters": parameters} if parameters else {}),
            "inputs": {need: self.output_hash(need) for need in stage.needs},
            "outside": self._outside(stage, config, settings),
        }

    def _outside(self, stage: Stage, config: Config, settings: dict[str, Any]) -> str | None:
        """Return the hash of the state of external files. If they are missing, return the hash that was recorded when
        they were read."""
        try:
            outside = stage.outside(config)
        except (InputError, ConfigError) as error:  # a source that has moved or was deleted
            try:
                manifest = read_manifest(self.folder / stage.key)
            except ArtifactError:  # the stage was never completed with this source
                raise error from None
            if manifest.get("settings") != json.loads(json.dumps(settings)):
                raise
            self._missing_sources[stage.key] = str(error.where or error.message)
            noted = manifest["outside"]
            return None if noted is None else str(noted)
        return value_hash(outside) if outside else None

    def output_hash(self, key: str) -> str:
        """Return the content hash of a finished stage, from its manifest."""
        folder = stage_folder(key, self.folder, self.base)
        if not (folder / MANIFEST).exists():
            raise ArtifactError(
                f"The stage {key!r} has not been run.", where=str(self.base or self.folder), fix=self._command(key)
            )
        return str(read_manifest(folder)["output"])

    def _command(self, key: str) -> str:
        """Return the command that runs a stage of this run, or of the run on which it is based."""
        home = self.base or self.folder
        if self.base and (self.folder / key).exists():
            return "run the command again to recompute it"
        if not {stage.name for stage in self.stages} & set(STAGE_NAMES) - {"data"}:
            return resume_command(home)  # stages of other recipes are not commands
        command = f"taiji {key if key in STAGE_NAMES else f'stage {key}'}"
        return f"{command} {run_options(home)}"

    def _check_inputs(self, stage: Stage) -> None:
        """Raise an error if the inputs of a stage have changed since they were written."""
        for key in stage.needs:
            folder = stage_folder(key, self.folder, self.base)
            if damage := self.verifier.damage(folder, read_manifest(folder)):
                raise ArtifactError(
                    f"The stage {stage.key!r} reads the stage {key!r}, whose files have changed since they were written.",
                    where=str(folder),
                    found=damage,
                    fix=f"run the stage {key!r} again: {self._command(key)}; or {remake(self.base or self.folder)}",
                )

    def execute(self, names: Sequence[str] | None = None) -> None:
        """Run the named stages (default: all) in the recipe's order, skipping those that are finished and unchanged.

        Under a multi-process launcher only training stages can run. The first process owns the folder, and the others
        only take part in the training.

        Raises:
            ConfigError: a stage is unknown, or may not run in several processes.
        """
        self._check_names(names or ())
        chosen = [stage for stage in self.stages if names is None or stage.key in names]
        if processes() > 1 and not all(stage.distributed for stage in chosen):
            raise ConfigError(
                "Stages other than training cannot run in several processes.",
                expected=" or ".join(stage.key for stage in self.stages if stage.distributed),
                found=", ".join(names or ["all stages"]),
                fix="run `accelerate launch … -m taiji.cli sft CONFIG`, and the other stages without a launcher",
            )
        if not first_process():
            return self._join_training(chosen)
        with self._locked():
            write_json(self.folder / "config.json", self.config.model_dump(mode="json"))
            for number, stage in enumerate(chosen, start=1):
                place = f"[{number}/{len(chosen)}] {stage.key}"
                reason = self.reason_to_run(stage)
                if reason is None:
                    missing_source = self._missing_sources.get(stage.key)
                    explanation = (
                        f" (its source no longer exists: {missing_source}; the stored tables are used)"
                        if missing_source
                        else ""
                    )
                    self.say(f"{place}: unchanged, skipped{explanation}")
                else:
                    if reason:
                        self.say(f"{place}: running again: {reason}")
                    self.say(f"{place}: {stage.summary}")
                    seconds = self._execute(stage)
                    self.say(f"{place}: done in {seconds:,.1f} s")
                    for line in stage.told(self.folder / stage.key):
                        self.say(f"    {line}")
                    if seconds >= LONG:
                        give_back_memory()
                self._publish(stage, place, made=reason is not None)

    def force(self, names: Sequence[str]) -> None:
        """Mark stages and their dependents to be run again by the next :meth:`execute`. Existing artefacts are kept
        until then.

        Raises:
            ConfigError: a stage is unknown.
        """
        self._check_names(names)
        forced = set(names)
        for stage in self.stages:  # a stage comes after the stages that it needs
            if stage.key in forced or forced & set(stage.needs):
                forced.add(stage.key)
        with self._locked():
            for key in forced:
                shutil.rmtree(self.folder / ".work" / key, ignore_errors=True)
                write_json(self.folder / ".work" / key / LABEL, {"fingerprint": "", "seconds": 0.0, "forced": True})

    def _check_names(self, names: Sequence[str]) -> None:
        unknown = set(names) - {stage.key for stage in self.stages}
        if unknown:
            raise ConfigError(
                "A stage is unknown.",
                expected=", ".join(stage.key for stage in self.stages),
                found=", ".join(sorted(unknown)),
                fix="check the name; a stage of another package must be named under `stages` in the configuration",
            )

    def _publish(self, stage: Stage, place: str, made: bool) -> None:
        """Copy the stage's published files to the top of the run, unless they are already there."""
        for name in stage.publish:
            own, shown = self.folder / stage.key / name, self.folder / name
            if shown.is_file() and file_hash(shown) == file_hash(own):
                continue
            if not made:
                self.say(
                    f"{place}: {name} at the top of the run was {'changed' if shown.exists() else 'missing'}, written again"
                )
            with atomic_file(shown) as temporary:
                shutil.copyfile(own, temporary)

    def _label(self, stage: Stage) -> dict[str, Any]:
        """Return the label of the work in progress, or an empty dict if it is missing or unreadable."""
        with suppress(ArtifactError):
            label = read_json(self.folder / ".work" / stage.key / LABEL)
            if isinstance(label, dict) and {"fingerprint", "seconds"} <= label.keys():
                return label
        return {}

    def _join_training(self, stages: Sequence[Stage]) -> None:
        """Take part in the training led by the first process, with the same inputs and a temporary output folder."""
        for stage in stages:
            if not self.finished(stage):
                with tempfile.TemporaryDirectory(prefix="taiji-help-") as name:
                    scratch = (self.folder / ".work" / stage.key / "scratch").absolute()
                    stage.run(self._context(stage, Path(name), scratch))

    def _context(self, stage: Stage, out: Path, scratch: Path) -> Context:
        """Return the context of a stage with absolute paths, because a worker on another machine has another working
        directory."""
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
        self._check_inputs(stage)
        label, fingerprint, out = self._label(stage), value_hash(depends_on), work / "out"
        about = {"fingerprint": fingerprint, **({"forced": True} if label.get("forced") else {})}
        if label.get("fingerprint") != fingerprint:
            shutil.rmtree(work, ignore_errors=True)
        spent = float(label["seconds"]) if label and work.exists() else 0.0
        write_json(work / LABEL, {**about, "seconds": spent})
        if not self._complete(out):
            shutil.rmtree(out, ignore_errors=True)
            make_folder(out)
            make_folder(work / "scratch")
            start = time.monotonic()
            try:
                facts = stage.run(self._context(stage, out, work / "scratch"))
            finally:
                spent += time.monotonic() - start
                with suppress(TaijiError):  # on a full disk the original error matters, not the time of this attempt
                    write_json(work / LABEL, {**about, "seconds": spent})
            for leftover in out.rglob(f"{TEMPORARY}*"):
                leftover.unlink()
            write_manifest(
                out,
                {
                    **depends_on,
                    "fingerprint": fingerprint,
                    "code": source_hash(),
                    "finished": datetime.now(UTC).isoformat(timespec="seconds"),
                    "seconds": round(spent, 3),
                    "facts": facts,
                },
            )
        final, old = self.folder / stage.key, work / "old"
        with writing(final):
            if final.exists():
                shutil.rmtree(old, ignore_errors=True)
                os.replace(final, old)
            os.replace(out, final)
            shutil.rmtree(work)
        return spent

    def _complete(self, out: Path) -> bool:
        """Return True if the output folder is already complete, as after a kill during the final rename: its manifest,
        written last, exists and matches."""
        try:
            return self.verifier.damage(out, read_manifest(out)) is None
        except ArtifactError:
            return False

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with exclusive(
            self.folder / ".lock",
            "Another process is working on this run.",
            where=self.folder,
            fix="wait for it, or choose another --name",
        ):
            yield


@cache
def source_hash() -> str:
    """Return the hash of the package's source files, which every manifest records."""
    folder = Path(taiji.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]
