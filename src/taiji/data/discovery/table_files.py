"""The files of a folder, read far enough to tell what they are."""

from __future__ import annotations

import csv
import gzip
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from shlex import quote

import polars as pl

from taiji.core.errors import InputError
from taiji.data.discovery.columns import Column, facts
from taiji.data.discovery.words import meanings
from taiji.data.sources.files import CSV, JSON_LINES, distinct_columns, json_lines, kind_of, unreadable
from taiji.data.sources.label_rules import NUMBER

SAMPLE = 300_000
"""Rows of a file that are looked at."""
PARQUET = (".parquet", ".pq")
SEPARATORS = (",", ";", "\t", "|")


@dataclass(frozen=True)
class Table:
    """A file and what its columns are.

    Attributes:
        path: the file.
        frame: its first rows.
        separator: of a CSV; None for other kinds.
        header: names given to the columns of a CSV that has no header line.
    """

    path: Path
    frame: pl.DataFrame
    separator: str | None = None
    header: tuple[str, ...] = ()

    @cached_property
    def columns(self) -> dict[str, Column]:
        """Facts of every column that holds a value."""
        return {name: column for name, column in self._facts.items() if column.present}

    @cached_property
    def empty(self) -> tuple[str, ...]:
        """Columns without any value: they tell nothing and can play no part."""
        return tuple(name for name, column in self._facts.items() if not column.present)

    @cached_property
    def _facts(self) -> dict[str, Column]:
        return {name: facts(self.frame[name]) for name in self.frame.columns}

    @cached_property
    def means(self) -> frozenset[str]:
        """Table that the file's name suggests: ``events``, ``items``, ``users``."""
        return meanings(self.path.name.split(".")[0]) & {"events", "items", "users"}

    def texts(self, column: str) -> pl.Series:
        """A column's different values as text, for comparing ids across files of different types."""
        values = self.frame[column].drop_nulls()
        values = values.cast(pl.Int64, strict=False) if values.dtype.is_float() else values
        return values.cast(pl.String).str.strip_chars().unique(maintain_order=True)


def read_tables(folder: Path) -> tuple[list[Table], list[str]]:
    """Read the first rows of every data file of a folder.

    Returns:
        tables by name of file; and what was left out and why.

    Raises:
        InputError: no such folder, no data file in it, or a file that is broken (naming it).
    """
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        fix = (
            f"give the folder that holds it: taiji init {quote(str(folder.parent))}"
            if folder.is_file()
            else "check the path"
        )
        raise InputError(
            "There is no folder to look at.",
            where=str(folder),
            expected="a folder with Parquet, CSV or JSON-lines files",
            found=found,
            fix=fix,
        )
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    known = [path for path in files if kind_of(path) in (*PARQUET, *CSV, *JSON_LINES)]
    tables, notes = (
        [],
        [
            f"{path.name} was not looked at: neither Parquet, CSV nor JSON lines."
            for path in files
            if path not in known and path.suffix not in (".yaml", ".yml", ".md")
        ],
    )
    for path in known:
        table = _read(path)
        if table.frame.is_empty() or not table.frame.columns:
            notes.append(f"{path.name} was left out: it holds no rows.")
        elif kind_of(path) in (".txt", ".dat") and len(table.frame.columns) == 1:
            notes.append(f"{path.name} was left out: text without columns.")
        else:
            tables.append(table)
    if not tables:
        inner = [path.name for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]
        raise InputError(
            "No data file was found.",
            where=str(folder),
            expected=".parquet, .csv, .tsv or .jsonl files (.gz too) with at least one row, directly in the folder",
            found=", ".join(path.name for path in files[:8])
            or ("only folders: " + ", ".join(inner[:8]) if inner else "an empty folder"),
            fix=f"taiji init {quote(str(folder / inner[0]))}"
            if inner
            else "put your export there, or name another folder",
        )
    return tables, notes


def _read(path: Path) -> Table:
    kind = kind_of(path)
    try:
        if kind in PARQUET:
            return Table(path, pl.scan_parquet(path).head(SAMPLE).collect())
        if kind in JSON_LINES:
            rows = [row for _, row in zip(range(SAMPLE), json_lines(path))]
            return Table(path, pl.DataFrame(rows, infer_schema_length=None, strict=False))
        separator, first = _separator(path)
        if not _no_header(first):
            distinct_columns(path, first)
        header = tuple(f"column_{place}" for place in range(1, len(first) + 1)) if _no_header(first) else ()
        names = list(header) or None
        frame = pl.read_csv(
            path, separator=separator, has_header=not header, new_columns=names, infer_schema=False, n_rows=SAMPLE
        )
        return Table(path, frame, separator, header)
    except (OSError, EOFError, UnicodeError, csv.Error, pl.exceptions.PolarsError) as error:
        if kind in CSV and (isinstance(error, UnicodeError) or "utf-8" in str(error).lower()):
            raise InputError(
                "A file is not in UTF-8.",
                where=str(path),
                expected="text in UTF-8",
                found="another encoding (exports of spreadsheets are often in cp1252, Chinese ones in gb18030)",
                fix=f"convert it: iconv -f cp1252 -t utf-8 {path.name} > new.csv   (or -f gb18030), or export Parquet",
            ) from error
        raise unreadable(path, error) from error


def _separator(path: Path) -> tuple[str, list[str]]:
    """The separator that cuts the first lines into the most columns, evenly; and the first line's cells."""
    with (
        gzip.open(path, "rt", encoding="utf-8-sig")
        if path.suffix.lower() == ".gz"
        else path.open(encoding="utf-8-sig") as stream
    ):
        lines = [line for _, line in zip(range(20), stream) if line.strip()]
    if not lines:
        return ",", []
    widths = {}
    for separator in SEPARATORS:
        counts = [
            len(row) for row in csv.reader(lines[:-1] or lines, delimiter=separator)
        ]  # the last line may be cut inside quotes
        widths[separator] = counts[0] if counts and len(set(counts)) == 1 else 1
    best = max(SEPARATORS, key=lambda separator: widths[separator])
    return best, next(csv.reader(lines[:1], delimiter=best))


def _no_header(cells: list[str]) -> bool:
    """A header line holds names: a number among its cells means that there is none."""
    return any(NUMBER.match(cell.strip()) for cell in cells if cell.strip())
