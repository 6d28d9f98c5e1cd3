"""Load the description of a cluster, and print a plan."""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic import ValidationError

from taiji.core.errors import TaijiError
from taiji.core.settings import problem_text
from taiji.core.yaml_files import read_yaml
from taiji.scale.plan import Cluster, Cost, Plan


def load_cluster(path: Path | None) -> Cluster:
    """Load the description of a cluster from a YAML file.

    Without a file, return a single machine, as fast as the one on which the finished runs were measured.

    Raises:
        TaijiError: the file is unreadable, or does not describe a cluster.
    """
    if path is None:
        return Cluster()
    values = read_yaml(path, "the cluster", "docs/scale.md has an example")
    try:
        return Cluster.model_validate(values or {})
    except ValidationError as error:
        found = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem_text(problem)}" for problem in error.errors()
        )
        raise TaijiError(
            "This file does not describe a cluster.",
            where=str(path),
            expected=", ".join(Cluster.model_fields),
            found=found,
        ) from error


def print_plan(plan: Plan) -> None:
    """Print a table of the stages with a row of totals, then the assumptions."""
    from rich.console import Console
    from rich.table import Table

    table = Table(
        "stage", *(("rows", "tokens read", "written", "trained on", "GPU hours", "price", "wall time", "storage"))
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for cost in plan.stages:
        table.add_row(cost.stage, *_cells(cost))
    table.add_section()
    table.add_row(
        "all",
        "",
        *("" for _ in range(3)),
        f"{plan.gpu_hours:,.1f}",
        f"{plan.gpu_cost:,.2f}",
        _time(plan.seconds),
        _bytes(plan.gigabytes),
    )
    console = Console(width=None if sys.stdout.isatty() else 130)
    console.print(table)
    for line in plan.assumptions:
        console.print(f"- {line}", highlight=False)


def _cells(cost: Cost) -> list[str]:
    counts = [_count(value) for value in (cost.rows, cost.tokens_read, cost.tokens_written, cost.tokens_trained)]
    gpus = [f"{cost.gpu_hours:,.1f}", f"{cost.gpu_cost:,.2f}"] if cost.gpu_hours else ["", ""]
    return [*counts, *gpus, _time(cost.seconds), _bytes(cost.gigabytes)]


def _count(value: float) -> str:
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:.0f}" if value else ""


def _time(seconds: float) -> str:
    if seconds >= 2 * 86400:
        return f"{seconds / 86400:,.1f} d"
    if seconds >= 2 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 120 else f"{seconds:.0f} s"


def _bytes(gigabytes: float) -> str:
    return f"{gigabytes:,.1f} GB" if gigabytes >= 0.1 else f"{gigabytes * 1000:,.1f} MB"
