"""Tasks: the labels of a log, the kind of each, and the rows on which it is known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from taiji.core.errors import ConfigError
from taiji.core.settings import Settings

Kind = Literal["binary", "count", "duration", "ordinal", "pairwise", "survey"]


class Task(Settings):
    """A label that a ranker learns to predict."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    """Of the label's column, of the prediction's, and in every metric."""
    kind: Kind = "binary"
    """``binary`` (0/1), ``count`` (0, 1, 2, …), ``duration`` (a number ≥ 0, for instance seconds), ``ordinal`` (grades ``0 … levels − 1``),
    ``pairwise`` (a number of which only the order within a request counts), ``survey`` (0/1 of the few who were asked; without a joint prediction, for those who were not asked say nothing)."""
    given: str | None = None
    """A binary task that must have happened first: the label speaks about those rows alone (conversion given click)."""
    joint: str | None = None
    """Name of the prediction "both happened" (``ctcvr``) of a binary task with ``given``; default ``<given>_<name>``."""
    levels: int | None = Field(default=None, ge=2, le=100)
    """Number of grades of an ordinal task."""
    delayed: bool = False
    """True if the label is known at ``matured_at`` only; otherwise it is known with its event."""
    weight: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Of the task's loss beside the others."""

    @property
    def heads(self) -> tuple[str, ...]:
        """Names of the predictions: the task's, and the joint one's where it is conditional and binary."""
        both = self.joint or f"{self.given}_{self.name}"
        return (self.name, both) if self.given and self.kind == "binary" else (self.name,)

    @property
    def outputs(self) -> int:
        """Outputs of a network for the task: one, or one per threshold between grades."""
        return self.levels - 1 if self.kind == "ordinal" and self.levels else 1


CLICK = Task(name="click")
CONVERSION = Task(name="conversion", given="click", joint="ctcvr", delayed=True)
DEFAULT_TASKS = (CLICK, CONVERSION)


def check_tasks(tasks: Sequence[Task], where: str = "labels") -> tuple[Task, ...]:
    """Return the tasks in their order, except that each comes after the one that it is ``given``.

    Raises:
        ConfigError: a name twice, an unknown or non-binary ``given``, a circle, an ordinal task without ``levels``.
    """
    names = [head for task in tasks for head in task.heads]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(
            "Two predictions have one name.", where=where, expected="every name once", found=", ".join(twice)
        )
    known = {task.name: task for task in tasks}
    ordered: list[Task] = []
    waiting = list(tasks)
    for task in tasks:
        if task.kind == "ordinal" and task.levels is None:
            raise ConfigError(
                "An ordinal label needs the number of its grades.", where=f"{where}.{task.name}", fix="add `levels: 5`"
            )
        parent = known.get(task.given) if task.given else None
        if task.given and (parent is None or parent.kind != "binary"):
            raise ConfigError(
                "A label is conditional on something that is not a binary label.",
                where=f"{where}.{task.name}.given",
                expected="one of "
                + (
                    ", ".join(n for n, other in known.items() if other.kind == "binary" and other is not task)
                    or "(none)"
                ),
                found=task.given,
                fix=f"choose or declare {task.given} as a binary label too",
            )
    while waiting:
        done = {None, *(task.name for task in ordered)}
        ready = next((task for task in waiting if task.given in done), None)
        if ready is None:
            raise ConfigError(
                "Labels are conditional on each other in a circle.",
                where=where,
                found=", ".join(task.name for task in waiting),
            )
        ordered.append(ready)
        waiting.remove(ready)
    return tuple(ordered)


def labels(
    frame: pl.DataFrame, tasks: Sequence[Task], known_until: Mapping[str, int] | None = None
) -> dict[str, NDArray[np.float32]]:
    """Return every head's labels over the rows of ``frame``, (N,) float32 each, NaN where a row's label is unknown.

    A conditional label speaks about the rows on which its condition happened. Its joint label (both happened) is 0 where
    the condition did not, but only up to the time of the last row whose label is known: a row behind it is certain to be 0
    where the condition failed and cannot be 1 yet where it held, and counting it would make the joint event look rare.

    Args:
        frame: ``time`` and the tasks' columns; one that is missing is not known on any row.
        tasks: in the order of :func:`check_tasks`.
        known_until: task to the time of the last row whose label is known, where ``frame`` is a part of more rows.
    """
    found: dict[str, NDArray[np.float32]] = {}
    joint: dict[str, NDArray[np.float32]] = {}
    time = frame["time"].to_numpy()
    for task in tasks:
        values: NDArray[Any] = np.full(len(frame), np.nan, dtype=np.float32)
        if task.name in frame.columns:
            values = frame[task.name].cast(pl.Float32).fill_null(float("nan")).to_numpy(writable=True)
            if task.kind == "pairwise":  # only the order counts, and ranks are exact where large numbers are not
                ranks = frame[task.name].fill_nan(None) if frame[task.name].dtype.is_float() else frame[task.name]
                values = ranks.rank("dense").cast(pl.Float32).fill_null(float("nan")).to_numpy(writable=True)
        if task.given is None:
            found[task.name] = joint[task.name] = values
            continue
        before = joint[task.given]
        values = np.where(before == 1, values, np.nan).astype(np.float32)
        known = np.isfinite(values)
        last = time[known].max() if known.any() else np.iinfo(np.int64).min
        last = (known_until or {}).get(task.name, last)
        both = np.where(before == 0, np.where(time <= last, 0.0, np.nan), values).astype(np.float32)
        found[task.name], joint[task.name] = values, both
        if len(task.heads) > 1:
            found[task.heads[1]] = both
    return found


def last_known(frames: Iterable[pl.DataFrame], tasks: Sequence[Task]) -> dict[str, int]:
    """Return, for each conditional task, the time of the last row whose label is known over all frames; see :func:`labels`."""
    found: dict[str, int] = {}
    conditional = [task.name for task in tasks if task.given is not None]
    for frame in frames if conditional else ():
        known, time = labels(frame, tasks), frame["time"].to_numpy()
        for name in conditional:
            if (there := np.isfinite(known[name])).any():
                found[name] = max(found.get(name, int(time[there].max())), int(time[there].max()))
    return found
