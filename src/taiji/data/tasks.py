"""Tasks: the labels of a log, their kinds, and the rows for which they are known."""

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
    """Label that a ranker learns to predict."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    """Name of the label, shared by its column, its prediction and its metrics."""
    kind: Kind = "binary"
    """Kind of the label: ``binary`` (0/1), ``count`` (0, 1, 2, …), ``duration`` (a number ≥ 0, for instance seconds),
    ``ordinal`` (grades ``0 … levels − 1``), ``pairwise`` (a number; only its order within a request is used), or
    ``survey`` (0/1 for the few users who were asked a question; a survey has no joint prediction, because the answers
    of the other users are unknown)."""
    given: str | None = None
    """Binary task that is the condition of this one: the label is defined only for rows where the condition is 1
    (conversion given click)."""
    joint: str | None = None
    """Name of the joint prediction of a binary task and its condition ``given`` (such as ``ctcvr``); by default
    ``<given>_<name>``."""
    levels: int | None = Field(default=None, ge=2, le=100)
    """Number of grades of an ordinal task."""
    delayed: bool = False
    """True if the label becomes known only at ``matured_at``; otherwise it is known at the time of its event."""
    weight: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Weight of the loss of the task."""

    @property
    def heads(self) -> tuple[str, ...]:
        """Names of the predictions: the name of the task and, if it is conditional and binary, the name of the joint
        prediction."""
        both = self.joint or f"{self.given}_{self.name}"
        return (self.name, both) if self.given and self.kind == "binary" else (self.name,)

    @property
    def outputs(self) -> int:
        """Number of network outputs for the task: one, or one per threshold between grades."""
        return self.levels - 1 if self.kind == "ordinal" and self.levels else 1


CLICK = Task(name="click")
CONVERSION = Task(name="conversion", given="click", joint="ctcvr", delayed=True)
DEFAULT_TASKS = (CLICK, CONVERSION)


def check_tasks(tasks: Sequence[Task], where: str = "labels") -> tuple[Task, ...]:
    """Validate tasks, and return them in their order, except that each comes after its ``given`` task.

    Raises:
        ConfigError: a name is repeated, ``given`` is unknown or not binary or leads to a cycle, or an ordinal task has
            no ``levels``.
    """
    names = [head for task in tasks for head in task.heads]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(
            "Two predictions have the same name.", where=where, expected="unique names", found=", ".join(twice)
        )
    known = {task.name: task for task in tasks}
    ordered: list[Task] = []
    waiting = list(tasks)
    for task in tasks:
        if task.kind == "ordinal" and task.levels is None:
            raise ConfigError(
                "The number of grades of an ordinal label is missing.",
                where=f"{where}.{task.name}",
                fix="add `levels`, for example `levels: 5`",
            )
        parent = known.get(task.given) if task.given else None
        if task.given and (parent is None or parent.kind != "binary"):
            raise ConfigError(
                "The condition of a label is not a binary label.",
                where=f"{where}.{task.name}.given",
                expected="one of "
                + (
                    ", ".join(n for n, other in known.items() if other.kind == "binary" and other is not task)
                    or "(none)"
                ),
                found=task.given,
                fix=f"choose another label, or declare {task.given} as a binary label",
            )
    while waiting:
        done = {None, *(task.name for task in ordered)}
        ready = next((task for task in waiting if task.given in done), None)
        if ready is None:
            raise ConfigError(
                "The conditions of labels form a cycle.",
                where=where,
                expected="at least one of these labels without `given`",
                found=", ".join(f"{task.name} given {task.given}" for task in waiting),
            )
        ordered.append(ready)
        waiting.remove(ready)
    return tuple(ordered)


def labels(
    frame: pl.DataFrame, tasks: Sequence[Task], known_until: Mapping[str, int] | None = None
) -> dict[str, NDArray[np.float32]]:
    """Return the labels of every prediction for the rows of ``frame``, (N,) float32 each, NaN where unknown.

    A conditional label is defined only for rows where its condition is 1, and the joint label equals it there. Where
    the condition is 0, the joint label is 0 up to the time of the last row whose conditional label is known, and NaN
    after that time: otherwise the only joint labels known there would be zeros, and the joint event would look too
    rare.

    Args:
        frame: rows with ``time`` and the columns of the tasks; a label whose column is missing is unknown for all rows.
        tasks: tasks in the order of :func:`check_tasks`.
        known_until: time of the last row whose label is known, by task, from :func:`last_known`. It is needed if
            ``frame`` is only a part of the rows; by default, the time is computed from ``frame``.
    """
    found: dict[str, NDArray[np.float32]] = {}
    joint: dict[str, NDArray[np.float32]] = {}
    time = frame["time"].to_numpy()
    for task in tasks:
        values: NDArray[Any] = np.full(len(frame), np.nan, dtype=np.float32)
        if task.name in frame.columns:
            values = frame[task.name].cast(pl.Float32).fill_null(float("nan")).to_numpy(writable=True)
            if task.kind == "pairwise":  # only the order is used, and ranks are exact in float32, unlike large numbers
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
    """Return the time of the last row with a known label over all frames, by conditional task; see :func:`labels`."""
    found: dict[str, int] = {}
    conditional = [task.name for task in tasks if task.given is not None]
    for frame in frames if conditional else ():
        known, time = labels(frame, tasks), frame["time"].to_numpy()
        for name in conditional:
            if (known_rows := np.isfinite(known[name])).any():
                found[name] = max(found.get(name, int(time[known_rows].max())), int(time[known_rows].max()))
    return found
