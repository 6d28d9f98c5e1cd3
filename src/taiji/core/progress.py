"""The one progress display: a live bar with rate and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
SHOW_AFTER = 2.0
"""Seconds: what is shorter stays silent."""
LINE_EVERY = 10.0
"""Seconds between plain lines."""

_silent = False


def silence(silent: bool) -> None:
    """Show nothing from now on in this process, or show progress again."""
    global _silent
    _silent = silent


def _plain(description: str, total: int | None, unit: str, done: int, seconds: float) -> str:
    rate = done / seconds if seconds else 0.0
    text = f"{description}: {done:,}" + (f"/{total:,}" if total else "") + f" {unit}, {rate:,.1f} {unit}/s"
    if total and rate and done < total:
        text += f", {(total - done) / rate:,.0f} s left"
    return text


@contextmanager
def progress(description: str, total: int | None = None, unit: str = "rows") -> Iterator[Callable[[int], None]]:
    """Show how a long job goes; yields ``update(done)``, to be called with the number of units done so far."""
    if _silent:
        yield lambda done: None
        return
    start, state = time.monotonic(), {"done": 0, "line": time.monotonic() - LINE_EVERY + SHOW_AFTER}
    if sys.stderr.isatty():
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
            task = bar.add_task(description, total=total, rate="")

            def show(done: int) -> None:
                state["done"] = done
                seconds = time.monotonic() - start
                bar.update(task, completed=done, rate=f"{done / seconds if seconds else 0:,.1f} {unit}/s")

            yield show
    else:

        def line(done: int) -> None:
            state["done"] = done
            now = time.monotonic()
            if now - state["line"] >= LINE_EVERY:
                state["line"] = now
                print(_plain(description, total, unit, done, now - start), file=sys.stderr, flush=True)

        yield line
    seconds = time.monotonic() - start
    if seconds >= SHOW_AFTER:
        print(f"{description}: {int(state['done']):,} {unit} in {seconds:,.1f} s", file=sys.stderr, flush=True)


def track(rows: Iterable[T], description: str, total: int | None = None, unit: str = "rows") -> Iterator[T]:
    """Iterate with a progress display."""
    if total is None and hasattr(rows, "__len__"):
        total = len(rows)  # type: ignore[arg-type]
    with progress(description, total, unit) as update:
        for number, row in enumerate(rows, start=1):
            yield row
            update(number)
