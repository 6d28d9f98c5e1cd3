"""Common parts of all benchmarks: arguments, paired timing, table, checks, JSON file, and exit code.

A benchmark module defines ``measure(quick: bool) -> Result`` and ends with ``run(measure)``. A check compares a
measured value with a bar, which is a limit that was set beforehand. Two speeds are compared by the ratio of their
times, because absolute times depend on the machine; both are measured in turn in one process.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from taiji.core import progress
from taiji.core.artifacts import write_json
from taiji.core.errors import TaijiError


@dataclass(frozen=True)
class Check:
    """A measured value and its limit.

    Attributes:
        name: description of the value.
        value: the measured value.
        bar: the limit.
        holds: True if the value is on the right side of the limit.
    """

    name: str
    value: float
    bar: float
    holds: bool


@dataclass
class Result:
    """Result of a benchmark.

    Attributes:
        rows: rows of the table, each a mapping from column to value.
        checks: checks of the rows.
        told: number of rows that :meth:`so_far` has already printed.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    told: int = 0

    def so_far(self) -> None:
        """Print the rows added since the last call to standard error, in case the run is stopped later."""
        for row in self.rows[self.told :]:
            print("  ".join(f"{key}={_text(value)}" for key, value in row.items()), file=sys.stderr, flush=True)
        self.told = len(self.rows)

    def at_least(self, name: str, value: float, bar: float) -> None:
        """Add the check ``value >= bar``; NaN fails it."""
        self.checks.append(Check(name, float(value), float(bar), bool(value >= bar)))

    def at_most(self, name: str, value: float, bar: float) -> None:
        """Add the check ``value <= bar``; NaN fails it."""
        self.checks.append(Check(name, float(value), float(bar), bool(value <= bar)))


def public_data() -> Path:
    """Return ``$TAIJI_TEST_DATA``, the folder of public data sets; end the program with a message if it is not set."""
    if not (folder := os.environ.get("TAIJI_TEST_DATA")):
        sys.exit(
            "This benchmark reads public data sets: set TAIJI_TEST_DATA to the folder that contains them "
            "(s3rec-Beauty, amazon-office, ml-latest-small, …), or try --quick, which needs none."
        )
    return Path(folder)


def in_turn(*actions: Callable[[], Any], repeats: int = 5, warmup: int = 1) -> list[list[float]]:
    """Time actions in the order A B C, A B C, …, so that a change in the machine's speed affects all of them equally.

    Return for each action the list of its seconds, one value per repeat. The first ``warmup`` rounds are not counted.
    """
    seconds: list[list[float]] = [[] for _ in actions]
    for repeat in range(warmup + repeats):
        for number, action in enumerate(actions):
            start = time.perf_counter()
            action()
            if repeat >= warmup:
                seconds[number].append(time.perf_counter() - start)
    return seconds


def median_ratio(numerator: Sequence[float], denominator: Sequence[float]) -> float:
    """Return the median ratio of two series of times from :func:`in_turn`, paired by round."""
    return statistics.median(a / b for a, b in zip(numerator, denominator))


def machine() -> dict[str, Any]:
    """Return a description of this machine, the versions of the main packages, the commit and the date."""
    import importlib.metadata

    processor = platform.processor()
    if Path("/proc/cpuinfo").exists():
        names = [
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ]
        processor = names[0] if names else processor
    versions = {}
    for package in ("torch", "transformers", "trl", "polars", "faiss-cpu"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": versions,
        "commit": commit,
        "date": datetime.now(UTC).date().isoformat(),
    }


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print rows as an aligned table, with columns in the order of their first appearance."""
    if not rows:
        return
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[_text(row.get(column, "")) for column in columns] for row in rows]
    widths = [max(len(column), *(len(line[i]) for line in cells)) for i, column in enumerate(columns)]
    for line in [columns, *cells]:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip())


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def run(measure: Callable[[bool], Result], argv: Sequence[str] | None = None) -> None:
    """Parse the arguments, measure, print the table and the checks, write the JSON file, and exit.

    The exit code is 0 if all checks hold, 1 if a check fails, and 2 after an error that the user can correct. Such an
    error is printed without a traceback.
    """
    function = measure.func if isinstance(measure, partial) else measure
    parser = argparse.ArgumentParser(
        description=sys.modules[function.__module__].__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer repeats and smaller sizes: seconds to a few minutes"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write checks, rows and machine to FILE as JSON")
    arguments = parser.parse_args(argv)
    progress.silence(False)
    try:
        result = measure(arguments.quick)
    except TaijiError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    show(result.rows)
    for check in result.checks:
        print(f"{'holds' if check.holds else 'FAILS'}  {check.name}: {check.value:.4g} (bar {check.bar:.4g})")
    if arguments.json:
        write_json(
            arguments.json,
            plain({"checks": [asdict(c) for c in result.checks], "rows": result.rows, "machine": machine()}),
        )
    sys.exit(0 if all(check.holds for check in result.checks) else 1)


def plain(value: Any) -> Any:
    """Return a value that JSON can represent: NaN and infinity become null, and NumPy scalars become numbers."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if hasattr(value, "item") and not isinstance(value, (str, bytes)):
        value = value.item()
    if isinstance(value, float) and not (abs(value) < float("inf")):
        return None
    return json.loads(json.dumps(value))
