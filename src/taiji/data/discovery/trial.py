"""Apply parts of a proposed mapping to the inspected rows, using the code that reads the whole file."""

from __future__ import annotations

import polars as pl

from taiji.data.discovery.table_files import Table
from taiji.data.reading_report import Reading
from taiji.data.sources.cells import Cells
from taiji.data.sources.column_mapping import FileMapping
from taiji.data.sources.label_rules import parse_rule


def tried_cells(table: Table) -> Cells:
    """Return a parser of the cells of a table.

    It uses the number notation found for each column; invalid cells become null.
    """
    numbers = {column.name: column.understood.form for column in table.columns.values()}
    reading = Reading()
    reading.file("events", table.path.name, len(table.frame))
    plan = FileMapping(file=table.path.name, numbers=numbers)
    return Cells("events", table.frame, table.path, plan, "drop", reading)


def tried_label(table: Table, rule: bool | int | str) -> pl.Series:
    """Evaluate a label rule on the inspected rows: 0, 1, or null where unknown, (n,) int8."""
    return tried_cells(table).label(parse_rule(rule), "label")
