"""Progress display of long jobs. In a library the progress is logged; a program may show a live bar or plain lines on
standard error.

A job inside another job shows nothing on a terminal. In a log or a redirected standard error, it writes progress lines
but no final line.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")
SHOW_AFTER = 2.0
"""Seconds before the first plain line. Jobs that take less time get no final line."""
LINE_EVERY = 10.0
"""Seconds between two plain lines."""

log = logging.getLogger(__name__)


_within: ContextVar[bool] = ContextVar("within", default=False)
"""True inside a job whose progress is shown."""
_purpose: ContextVar[str] = ContextVar("purpose", default="")
"""Purpose of the jobs that are started now, shown in brackets after their descriptions."""


class _Display:
    """Place where this process shows progress: standard error (True), nowhere (False), or the log (None)."""

    shown: bool | None = None


def silence(silent: bool) -> None:
    """Hide the progress of this process, or show it on standard error. Programs such as the command line call this
    function."""
    _Display.shown = not silent


def _emit(line: str) -> None:
    if _Display.shown:
        print(line, file=sys.stderr, flush=True)
    else:
        log.info(line)


def _unit(unit: str, number: int) -> str:
    """Return the unit, in the singular if the number is 1."""
    first, *rest = unit.split(" ")
    return " ".join([first.removesuffix("s"), *rest]) if number == 1 else unit


@contextmanager
def purpose(text: str) -> Iterator[None]:
    """Show the purpose of the jobs in the block, to distinguish jobs that run several times, such as training a ranker.

    Inside another such block, both purposes are shown.
    """
    outer = _purpose.get()
    token = _purpose.set(f"{outer}, {text}" if outer else text)
    try:
        yield
    finally:
        _purpose.reset(token)


def _plain(description: str, total: int | None, unit: str, done: int, seconds: float, early: bool) -> str:
    rate = done / seconds if seconds else 0.0
    counted = f"{done:,}/{total:,} {unit}" if total else f"{done:,} {_unit(unit, done)}"
    text = f"{description}: {counted}, {rate:,.1f} per second"
    if total and rate and done < total:
        text += f", {'at most ' if early else ''}{(total - done) / rate:,.0f} s left"
    return text


@contextmanager
def progress(
    description: str, total: int | None = None, unit: str = "rows", *, early: bool = False
) -> Iterator[Callable[[int], None]]:
    """Show the progress of a long job. The block receives a function ``update(done)`` to call with the number of
    finished units.

    Args:
        description: short name of the job.
        total: number of units; None if it is unknown.
        unit: plural name of the units.
        early: True if the job may end before ``total``, so that the remaining time is an upper bound.
    """
    if _Display.shown is False:
        yield lambda done: None
        return
    inner = _within.get()
    token = _within.set(True)
    try:
        if text := _purpose.get():
            description = f"{description} ({text})"
        with _shown(description, total, unit, inner, early) as update:
            yield update
    finally:
        _within.reset(token)


@contextmanager
def _shown(description: str, total: int | None, unit: str, inner: bool, early: bool) -> Iterator[Callable[[int], None]]:
    start, state = time.monotonic(), {"done": 0, "line": time.monotonic() - LINE_EVERY + SHOW_AFTER}
    if _Display.shown and sys.stderr.isatty() and inner:
        yield lambda done: None  # two bars would overwrite each other
    elif _Display.shown and sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(f"{description}{', may stop early' if early else ''}", total=total, rate="")

            def show(done: int) -> None:
                state["done"] = done
                seconds = time.monotonic() - start
                bar.update(task, completed=done, rate=f"{done / seconds if seconds else 0:,.1f} {unit} per second")

            yield show
    else:

        def line(done: int) -> None:
            state["done"] = done
            now = time.monotonic()
            if now - state["line"] >= LINE_EVERY and done != total:  # the last line is printed below
                state["line"] = now
                _emit(_plain(description, total, unit, done, now - start, early))

        yield line
    seconds = time.monotonic() - start
    if seconds >= SHOW_AFTER and not inner:
        _emit(f"{description}: {int(state['done']):,} {_unit(unit, int(state['done']))} in {seconds:,.1f} s")


def track(rows: Iterable[T], description: str, total: int | None = None, unit: str = "rows") -> Iterator[T]:
    """Iterate over rows with a progress display."""
    if total is None and hasattr(rows, "__len__"):
        total = len(rows)  # type: ignore[arg-type]
    with progress(description, total, unit) as update:
        for number, row in enumerate(rows, start=1):
            yield row
            update(number)
