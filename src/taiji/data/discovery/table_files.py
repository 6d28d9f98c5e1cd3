"""Read the first rows of the files of a folder to identify their contents."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from itertools import islice
from pathlib import Path
from shlex import quote

import polars as pl

from taiji.core.errors import InputError, ResourceError, TaijiError
from taiji.data.discovery.columns import Column, facts
from taiji.data.discovery.words import meanings
from taiji.data.identity import plain
from taiji.data.sources.delimited import (
    HEAD,
    Broken,
    lines_above,
    names_of,
    plain_names,
    read_delimited,
    sequences_of,
    text_lines,
)
from taiji.data.sources.file_parts import Part, hidden, is_pattern, parts_of, stacked, with_partition
from taiji.data.sources.files import (
    CSV,
    EXCEL,
    JSON_LINES,
    PARQUET,
    SUFFIXES,
    columns_of,
    distinct_columns,
    flat,
    frame_of,
    json_lines,
    kind_of,
    read_sheet,
    read_table,
    tell_broken,
    unreadable,
)
from taiji.data.sources.label_rules import NUMBER
from taiji.data.sources.separators import best_separator, explained
from taiji.data.sources.time_cells import time_forms

SAMPLE = 300_000
"""Largest number of rows of a table to inspect."""
TEXTS = (".txt", ".dat", ".data")
"""Suffixes of files that may hold prose instead of a table."""
PROSE = re.compile(r"^(readme|notes?|licen[cs]e|changelog|citation|about|info|description)\b", re.IGNORECASE)
"""Pattern of the names of text files that accompany data."""
VERSION_ROWS = 20_000
"""Number of rows to compare in order to distinguish parts of a table from versions of it."""
COUNTERS = ("", "column_1", "index", "row", "Unnamed: 0")
"""Names of columns that number the rows of a file."""
QUIET = (".yaml", ".yml", ".md")
"""Suffixes of files that are skipped without a note."""


@dataclass(frozen=True)
class Table:
    """First rows of a table, and descriptions of its columns.

    Attributes:
        path: file, folder of parts, or pattern that the parts match.
        frame: first rows of the table.
        separator: separator of a CSV; None for other kinds of files.
        header: column names for a CSV without a header line.
        broken: invalid lines among the inspected ones.
        partition: columns whose values come from the names of folders.
        sequences: columns of a RecBole atomic file (``.inter``, ``.item``, ``.user``) that hold several values
            separated by spaces.
        above: lines above the header.
    """

    path: Path
    frame: pl.DataFrame
    separator: str | None = None
    header: tuple[str, ...] = ()
    broken: tuple[Broken, ...] = ()
    partition: tuple[str, ...] = ()
    sequences: tuple[str, ...] = ()
    above: tuple[str, ...] = ()

    @cached_property
    def columns(self) -> dict[str, Column]:
        """Descriptions of all columns that have a value, by name."""
        return {name: column for name, column in self._facts.items() if column.present}

    @cached_property
    def empty(self) -> tuple[str, ...]:
        """Columns without values, which cannot have a role."""
        return tuple(name for name, column in self._facts.items() if not column.present)

    @cached_property
    def _facts(self) -> dict[str, Column]:
        return {name: facts(self.frame[name]) for name in self.frame.columns}

    @cached_property
    def means(self) -> frozenset[str]:
        """Roles that the name of the file suggests: ``events``, ``items``, ``users``."""
        suffix = self.path.name.rpartition(".")[2].lower()
        atomic = {"inter": "events", "item": "items", "user": "users"}
        if suffix in atomic:
            return frozenset({atomic[suffix]})
        return meanings(self.path.name.split(".")[0]) & {"events", "items", "users"}

    def ids(self, column: str) -> pl.Series:
        """Return the distinct values of a column in the normal form of ids, from all rows of the table."""
        if column not in self._ids:
            values = self.frame[column]
            if len(self.frame) >= SAMPLE:
                header = list(self.header) or None
                values = read_table(self.path, {column: None}, separator=self.separator, header=header, broken=[])[
                    column
                ]
            self._ids[column] = plain(values).drop_nulls().unique(maintain_order=True)
        return self._ids[column]

    @cached_property
    def _ids(self) -> dict[str, pl.Series]:
        return {}


def read_tables(folder: Path, ignore: Sequence[str] = ()) -> tuple[list[Table], list[str]]:
    """Read the first rows of every table in a folder. A subfolder is read as one table in parts.

    Args:
        folder: folder that contains the files.
        ignore: patterns of file names to skip.

    Returns:
        the tables (files, then folders, each sorted by name), and notes on skipped files with reasons.

    Raises:
        InputError: the folder does not exist, it contains no data file, or one of its files is broken.
    """
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        fix = (
            f"name the folder that contains the file: taiji init {quote(str(folder.parent))}"
            if folder.is_file()
            else "check the path"
        )
        raise InputError(
            "The path is not a folder.",
            where=str(folder),
            expected="a folder with Parquet, CSV, JSON-lines or Excel files",
            found=found,
            fix=fix,
        )
    entries = [path for path in sorted(folder.iterdir()) if not hidden(path)]
    ignored = [path for path in entries if any(fnmatch(path.name, pattern) for pattern in ignore)]
    notes = [f"{path.name} was skipped because of --ignore." for path in ignored]
    entries = [path for path in entries if path not in ignored]
    notes += [f"{path.name} was skipped: it is a link to a missing file." for path in entries if not path.exists()]
    files = [path for path in entries if path.is_file()]
    known = [path for path in files if kind_of(path) in SUFFIXES]
    notes += [
        f"{path.name} was skipped: it is not a Parquet, CSV, Excel or JSON-lines file."
        for path in files
        if path not in known and path.suffix not in QUIET
    ]
    tables = []
    for path in _combine_numbered_files(known, notes):
        table = _table(path, notes)
        if table is not None:
            tables.append(table)
    for inner in _combine_partition_folders([path for path in entries if path.is_dir()]):
        table = _table_of_folder(inner, notes)
        if table is not None:
            tables.append(table)
    if not tables:
        inners = [path.name for path in entries if path.is_dir()]
        raise InputError(
            "The folder contains no data file.",
            where=str(folder),
            expected="at least one .parquet, .csv, .tsv, .jsonl or .xlsx file (possibly .gz) with rows, or folders of such files",
            found="; ".join(notes[:8]) or ("only folders: " + ", ".join(inners[:8]) if inners else "an empty folder"),
            fix=f"taiji init {quote(str(folder / inners[0]))}"
            if inners
            else "put your exported files into it, or name another folder",
        )
    return tables, notes


def _combine_numbered_files(files: list[Path], notes: list[str]) -> list[Path]:
    """Combine files into one table if their names differ only in numbers and their columns are the same."""
    groups: dict[str, list[Path]] = {}
    for path in files:
        name = re.sub(r"^(part)\b.*?((\.[a-z]+)+)$", r"\1*\2", path.name) if path.name.startswith("part") else path.name
        groups.setdefault(re.sub(r"\d+", "*", name), []).append(path)
    found = []
    for name, group in groups.items():
        pattern = re.sub(r"\*[\W_]*(?=\*)", "", name)  # a date such as 2024-01-31 becomes a single star
        together = [part.path for part in parts_of(group[0].parent / pattern)]
        same = len(group) > 1 and sorted(together) == sorted(group) and len({_signature(path) for path in group}) == 1
        if same and _signature(group[0]) and not _versions(group[-2:]):
            notes.append(f"{pattern} is read as one table of {len(group):,} files with the same columns.")
            found.append(group[0].parent / pattern)
        else:
            found += group
    return sorted(found)


def _versions(files: list[Path]) -> bool:
    """Return True if two files are versions of one table: a column is unique in both and has mostly the same values."""
    one, other = (_read(Part(path), VERSION_ROWS).frame for path in files)
    for name in one.columns:
        a, b = one[name].drop_nulls(), other[name].drop_nulls()
        keys = all(len(values) >= 5 and not values.dtype.is_nested() and values.is_unique().all() for values in (a, b))
        if (
            keys
            and name not in COUNTERS
            and a.dtype == b.dtype
            and a.is_in(b.implode()).sum() >= 0.5 * min(len(a), len(b))
        ):
            return True
    return False


def _signature(path: Path) -> tuple[str, ...]:
    """Return the column names of a file, or an empty tuple if they cannot be read cheaply or if the first line
    is not a header."""
    try:
        if kind_of(path) in PARQUET:
            return tuple(sorted(columns_of(Part(path))))
        if kind_of(path) in JSON_LINES:
            return tuple(sorted(next(json_lines(path, []), {})))
        if kind_of(path) in CSV:
            separator, rows = _separator(path)
            return () if not rows or _no_header(rows) or len(rows[0]) < 2 else tuple(sorted(names_of(path, separator)))
    except (OSError, EOFError, UnicodeError, csv.Error, pl.exceptions.PolarsError, TaijiError):
        return ()  # the error is reported when the file is read
    return ()


def _combine_partition_folders(folders: list[Path]) -> list[Path]:
    """Combine the folders of one partition key (``date=2024-01-01``, ``date=2024-01-02``) into one table."""
    return sorted({path.parent / f"{path.name.partition('=')[0]}=*" if "=" in path.name else path for path in folders})


def _table_of_folder(folder: Path, notes: list[str]) -> Table | None:
    """Return the files of a folder as one table. If they are not one table, add a note and return None."""
    parts = parts_of(folder, SUFFIXES)
    if not parts:
        notes.append(f"The folder {folder.name} was skipped: it contains no data file.")
        return None
    names = {_signature(part.path) for part in parts}
    if len({kind_of(part.path) for part in parts}) > 1 or not _one_table(names):
        notes.append(
            f"The folder {folder.name} was skipped: its {len(parts):,} files differ in their kind or their columns, "
            "so they are not parts of one table. "
            f"If they are the data, run taiji init {quote(str(folder))}"
        )
        return None
    return _table(folder, notes)


def _one_table(names: set[tuple[str, ...]]) -> bool:
    """Return True if the files can be one table: at least half of all their columns occur in every file."""
    sets = [set(some) for some in names]
    every, common = set.union(*sets), set.intersection(*sets)
    return bool(common) and len(common) >= 0.5 * len(every) if len(sets) > 1 else True


def _table(path: Path, notes: list[str]) -> Table | None:
    """Return the first rows of a file or of a table in parts. If it is not a table, add a note and return None."""
    parts = parts_of(path, SUFFIXES)
    if kind_of(path) in TEXTS and not is_pattern(path.name) and path.is_file() and _is_prose(path):
        notes.append(f"{path.name} was skipped: it is text without columns.")
        return None
    read = []
    rows = 0
    for part in parts:
        try:
            read.append(_read(part, SAMPLE - rows))
        except ResourceError as error:
            notes.append(
                f"{path.name} was skipped: reading spreadsheets requires the extra excel. {error.fix}, or save the sheet as CSV."
            )
            return None
        rows += len(read[-1].frame)
        if rows >= SAMPLE:
            break
    frame = stacked([table.frame for table in read])
    if frame.is_empty() and any(table.broken for table in read):
        tell_broken(path, [line for table in read for line in table.broken], None)
    if frame.is_empty() or not frame.columns:
        notes.append(f"{path.name} was skipped: it contains no rows.")
        return None
    if read[0].above:
        notes.append(f"{path.name}: the lines above the header were skipped ({'; '.join(read[0].above)}).")
    if again := _count_overlapping_rows([table.frame for table in read]):
        notes.append(
            f"{path.name}: {again:,} rows occur in two of its files and are used twice. Remove them from one of the files."
        )
    broken = tuple(line for table in read for line in table.broken)
    partition = tuple(dict.fromkeys(name for part in parts for name in part.values))
    return Table(path, frame, read[0].separator, read[0].header, broken, partition, read[0].sequences)


def _count_overlapping_rows(frames: Sequence[pl.DataFrame]) -> int:
    """Count the rows of a table that occur in more than one of its files."""
    schemas = [dict(sorted(frame.schema.items())) for frame in frames]
    if (
        len(frames) < 2
        or any(schema != schemas[0] for schema in schemas)
        or any(k.is_nested() for k in schemas[0].values())
    ):
        return 0
    apart = [frame.select(sorted(schemas[0])).unique() for frame in frames]
    return sum(len(frame) for frame in apart) - len(pl.concat(apart).unique())


def _is_prose(path: Path) -> bool:
    """Return True if a text file is prose: no separator splits its lines into equally many cells, or its name and first
    line suggest it.
    """
    try:
        separator, head = _separator(path)
    except (OSError, EOFError, UnicodeError, csv.Error):
        return bool(PROSE.match(path.name))
    first = head[0] if head else []
    return len(first) < 2 or (
        bool(PROSE.match(path.name)) and separator in (",", ";") and " " in "".join(first).strip()
    )


def _read(part: Part, rows: int) -> Table:
    path = part.path
    kind = kind_of(path)
    broken: list[Broken] = []
    try:
        if kind in PARQUET:
            frame = pl.scan_parquet(path, hive_partitioning=False).head(rows).collect()
            return Table(path, with_partition(flat(frame), part))
        if kind in JSON_LINES:
            frame = frame_of(list(islice(json_lines(path, broken), rows)))
            return Table(path, with_partition(frame, part), broken=tuple(broken))
        if kind in EXCEL:
            return Table(path, with_partition(read_sheet(path), part))
        separator, head = _separator(path)
        if wrong := explained(path, separator):
            raise wrong
        first = head[0] if head else []
        bare = _no_header(head)
        if not bare:
            distinct_columns(path, plain_names(first))
        header = tuple(f"column_{place}" for place in range(1, len(first) + 1)) if bare else ()
        found = read_delimited(path, separator, list(header) or None, rows=rows)
        lines = list(islice(text_lines(path), HEAD))
        return Table(
            path,
            with_partition(found.frame, part),
            separator,
            header,
            found.broken,
            sequences=sequences_of(path, separator),
            above=tuple(line.strip()[:60] for line in lines[: lines_above(lines, separator)] if line.strip()),
        )
    except (OSError, EOFError, UnicodeError, csv.Error, pl.exceptions.PolarsError) as error:
        raise _with_advice_to_ignore(path, unreadable(path, error)) from error
    except InputError as error:
        raise _with_advice_to_ignore(path, error) from error


def _with_advice_to_ignore(path: Path, error: TaijiError) -> TaijiError:
    """Return the error of a file with advice on how to skip the file."""
    advice = f"or skip the file: --ignore {quote(path.name)}"
    return type(error)(
        error.message,
        where=error.where,
        expected=error.expected,
        found=error.found,
        fix=f"{error.fix}; {advice}" if error.fix else advice,
    )


def _separator(path: Path) -> tuple[str, list[list[str]]]:
    """Return the separator that splits nearly all lines into the same number of cells, and the cells of the first lines
    from the header on.

    A separator that splits all lines evenly takes precedence, then the one with the most cells.
    """
    lines = [line for line in islice(text_lines(path), HEAD) if line.strip()]
    if not lines:
        return ",", []
    best = best_separator(lines)
    if best is None:
        return ",", list(csv.reader(lines)) if kind_of(path) in (".csv", ".tsv") else [[line] for line in lines]
    return best, list(csv.reader(lines[lines_above(lines, best) :], delimiter=best))


def _no_header(rows: list[list[str]]) -> bool:
    """Return True if the first line is not a header: it contains a number, a date, or values that occur in the lines
    below."""
    cells = [cell.strip() for cell in rows[0]] if rows else []
    if any(NUMBER.match(cell) or time_forms(pl.Series([cell])) for cell in cells if any(map(str.isdigit, cell))):
        return True
    below = [row for row in rows[1:] if len(row) == len(cells) and row != rows[0]]
    again = [cell for place, cell in enumerate(cells) if cell and any(row[place].strip() == cell for row in below)]
    return len(again) > 1 or any(not meanings(cell) for cell in again)
