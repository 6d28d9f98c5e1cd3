"""One-line forecast of a run, printed before its first stage: which stages will run, and for roughly how long.

Each stage declares its amount of work (:meth:`taiji.pipeline.stage.Stage.cost`). Its speed is measured in the run
itself or, if the run has not finished the stage, in another run in the same folder with the same language model. The
forecast assumes that these runs used this machine. Without measurements, only the stages and their sizes are listed.
For another machine or another size of the log, see :mod:`taiji.scale.plan`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from taiji.config import STORED, Config, config_from
from taiji.core.artifacts import read_json
from taiji.core.errors import ArtifactError, TaijiError
from taiji.core.manifests import has_finished_stage, read_manifest
from taiji.core.number_format import counted
from taiji.pipeline.amounts import Amount, Log
from taiji.pipeline.engine import Run
from taiji.pipeline.stage import Stage

OTHER_RUNS = 5
"""Largest number of other runs from which speeds are taken, the newest first."""
TARGET_TOKENS, KEPT_SHARE = 20.0, 0.5
"""Assumed number of tokens of a true answer, and assumed share of the rationales that are kept. Rough values suffice,
because only ratios of amounts enter the forecast.
"""
MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0


@dataclass(frozen=True)
class Forecast:
    """Stages that a run is about to compute, with their estimated duration.

    Attributes:
        pending: names of the pending stages, each with its number of prompts or texts; None if the number is unknown
            or the stage does not use the language model.
        total: number of stages of the run.
        seconds: estimated duration of those pending stages that have a measurement; 0 if none has one.
        unmeasured: pending stages without a measurement.
        runs: folders of the runs in which the other pending stages were measured.
        other_log: True if this run has not read its log yet and one of these runs read another log; this run's log is
            then assumed to have the same size.
    """

    pending: Mapping[str, int | None]
    total: int
    seconds: float = 0.0
    unmeasured: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    other_log: bool = False

    def sentence(self) -> str:
        """Return the forecast in one line."""
        if not self.pending:
            return f"All {self.total} stages are finished; they are checked, and skipped if nothing has changed."
        names = ", ".join(name if size is None else f"{name} ({size:,})" for name, size in self.pending.items())
        what = f"{len(self.pending)} of {self.total} stages to run: {names}."
        if any(size is not None for size in self.pending.values()):
            what += " Numbers in brackets count prompts or texts for the language model."
        if not self.runs:
            return f"{what} The time is unknown: no other run in this folder has finished one of these stages with this language model."
        same = ", if this log is about as large as theirs" if self.other_log else ""
        source = f"based on {' and '.join(self.runs)}{same}."
        if not self.unmeasured:
            return f"{what} Roughly {duration(self.seconds)}, {source}"
        known = counted(len(self.pending) - len(self.unmeasured), "stage")
        return (
            f"{what} The total time is unknown, because these stages were never measured: "
            f"{', '.join(self.unmeasured)}. "
            f"The estimate for the other {known} is roughly {duration(self.seconds)}, {source}"
        )


def duration(seconds: float) -> str:
    """Return a duration in words, rounded to minutes, hours or days."""
    if seconds < MINUTE:
        return "a minute or less"
    if seconds < 2 * HOUR:
        minutes = round(seconds / MINUTE)
        return counted(minutes if minutes < 20 else round(minutes, -1), "minute")
    return counted(round(seconds / HOUR), "hour") if seconds < 2 * DAY else counted(round(seconds / DAY), "day")


@dataclass(frozen=True)
class _Measured:
    """Run, possibly unfinished, with its configuration and the size of its log."""

    folder: Path
    config: Config
    log: Log

    def seconds(self, stage: Stage, amount: Amount) -> float | None:
        """Estimate the seconds that a stage needs for ``amount``, in proportion to its time in this run.

        The result is None if this run has not finished the stage.
        """
        with suppress(TaijiError, KeyError, TypeError, ValueError):
            spent = float(read_manifest(self.folder / stage.key)["seconds"])
            units = stage.cost(stage.configured(self.config), self.log).units
            return spent * amount.units / units if units > 0 and math.isfinite(amount.units) else spent
        return None


def forecast(run: Run) -> Forecast:
    """Return the forecast of a run from its configuration and the manifests of finished stages; load no data."""
    stages = _pending(run)
    measured = list(_measured(run))
    own = _facts(run.folder) if "data" not in {stage.key for stage in stages} else None
    log = _log(run.config, own or (_facts(measured[0].folder) if measured else None))
    seconds, unmeasured, used = 0.0, [], dict[str, _Measured]()
    pending: dict[str, int | None] = {}
    for stage in stages:
        amount = stage.cost(stage.configured(run.config), log)
        known = amount.language and math.isfinite(amount.rows)
        pending[stage.key] = round(amount.rows) if known else None
        found = next(((s, m) for m in measured if (s := m.seconds(stage, amount)) is not None), None)
        if found is None:
            unmeasured.append(stage.key)
        else:
            seconds += found[0]
            used[str(found[1].folder)] = found[1]
    other = own is None and any(source.config.data != run.config.data for source in used.values())
    return Forecast(pending, len(run.stages), seconds, tuple(unmeasured), tuple(used), other)


def _pending(run: Run) -> list[Stage]:
    """Return the stages that will run.

    A stage whose inputs are recomputed counts as pending, although the run skips it if the new inputs equal the old
    ones.
    """
    found: list[Stage] = []
    for stage in run.stages:
        reason: str | None = ""
        if not {other.key for other in found} & set(stage.needs):
            with suppress(TaijiError):  # the run itself will raise the error
                reason = run.reason_to_run(stage)
        if reason is not None:
            found.append(stage)
    return found


def _measured(run: Run) -> Iterator[_Measured]:
    """Yield the run itself, then the newest other runs in its folder.

    Runs without finished stages, or with another language model, are left out.
    """
    others = [path.parent for path in run.folder.parent.glob(f"*/{STORED}") if path.parent != run.folder]
    others.sort(key=lambda folder: (-(folder / STORED).stat().st_mtime, folder.name))
    for folder in (run.folder, *others[:OTHER_RUNS]):
        with suppress(TaijiError, ValidationError, OSError):
            if not has_finished_stage(folder):
                continue
            config = config_from(read_json(folder / STORED))
            if config.language == run.config.language:
                yield _Measured(folder, config, _log(config, _facts(folder)))


def _facts(folder: Path) -> dict[str, Any] | None:
    """Return the numbers of users, items and events in a run's log; None if the run has not read its log yet."""
    with suppress(ArtifactError, KeyError):
        return dict(read_manifest(folder / "data")["facts"])
    return None


def _log(config: Config, facts: Mapping[str, Any] | None) -> Log:
    """Return the assumed properties of a log.

    The number of users is infinite if ``facts`` is None. Texts have the largest lengths that the configuration allows,
    which suffices because only ratios of amounts enter the forecast.
    """
    users = float(facts["users"]) if facts else math.inf
    each = float(facts["events"]) / max(users, 1.0) if facts else 1.0
    longest = float(config.reasoning.prompts.token_budget)
    first, second, third, last = (share * each for share in config.split.fractions)
    return Log(
        users=users,
        events_per_user=each,
        exposures_per_user=(first, second, third, last),
        items=float(facts["items"]) if facts else 1.0,
        feature_rows_per_user=2.0 * config.size.feature_refreshes,
        student_tokens=longest,
        teacher_tokens=longest,
        rationale_tokens=float(config.reasoning.teacher.max_new_tokens),
        answer_tokens=float(config.generation.max_new_tokens),
        target_tokens=TARGET_TOKENS,
        kept_share=KEPT_SHARE,
    )
