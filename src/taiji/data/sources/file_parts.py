"""Find the files of a table that consists of several parts.

The parts are given by a folder, hive partitions (``date=2024-01-01/part-0.parquet``), or a pattern.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

import polars as pl

from taiji.core.errors import InputError
from taiji.data.sources.time_cells import in_utc

NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
"""Text in the name of a partition that stands for a missing value."""
EXACT = 2**53
"""Bound below which all integers are represented exactly as floats."""


@dataclass(frozen=True)
class Part:
    """One file of a table, and the partition values that the names of its folders contain."""

    path: Path
    values: dict[str, str | None] = field(default_factory=dict)


def is_pattern(name: str) -> bool:
    """Return True if a name is a pattern for several files."""
    return "*" in name


def hidden(path: Path) -> bool:
    """Return True for hidden and metadata files or folders, which hold no rows (``_SUCCESS``, ``.crc``)."""
    return path.name.startswith((".", "_"))


def parts_of(path: Path, suffixes: Sequence[str] | None = None) -> list[Part]:
    """Return the files of a path: the file itself, the files in a folder, or the files that match a pattern.

    Args:
        path: file, folder or pattern (``log-*.csv``, ``date=*``).
        suffixes: suffixes of the files to return from a folder; None returns all files.

    Raises:
        InputError: the folder belongs to a table format whose files also contain deleted rows.
    """
    from taiji.data.sources.files import kind_of

    if is_pattern(path.name):
        matches = [match for match in sorted(path.parent.glob(path.name)) if not hidden(match)]
        return [
            Part(part.path, {**_partition([match.name]), **part.values}) if match.is_dir() else part
            for match in matches
            for part in parts_of(match, suffixes)
        ]
    if not path.is_dir():
        return [Part(path)]
    for log in ("_delta_log", ".hoodie", "metadata"):
        if (path / log).is_dir() and (log != "metadata" or any((path / log).glob("*.metadata.json"))):
            raise InputError(
                "A folder belongs to a table format whose files also contain deleted rows.",
                where=str(path),
                expected="plain files, or a folder of plain files",
                found=f"the transaction log of a table format ({log})",
                fix="export the table as Parquet files with the program that wrote it",
            )
    found = []
    for file in sorted(path.rglob("*")):
        inner = file.relative_to(path)
        shown = file.is_file() and not any(hidden(Path(part)) for part in inner.parts)
        if shown and (suffixes is None or kind_of(file) in suffixes):
            found.append(Part(file, _partition(inner.parts[:-1])))
    return found


def _partition(folders: Sequence[str]) -> dict[str, str | None]:
    pairs = [folder.partition("=") for folder in folders if "=" in folder]
    return {key: None if value == NO_VALUE else unquote(value) for key, _, value in pairs}


def with_partition(frame: pl.DataFrame, part: Part) -> pl.DataFrame:
    """Add the partition values of a part to its rows, as text."""
    return frame.with_columns(
        pl.lit(value, pl.String).alias(name) for name, value in part.values.items() if name not in frame.columns
    )


def stacked(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Concatenate the rows of all parts.

    A column that is missing from a part is null in the rows of this part. If the types of a column differ between
    parts, the column gets a type that keeps all digits of integers.
    """
    if len(frames) == 1:
        return frames[0]
    kinds: dict[str, set[pl.DataType]] = {}
    for frame in frames:
        for name, kind in frame.schema.items():
            kinds.setdefault(name, set()).add(kind)
    mixed = {name for name, found in kinds.items() if len(found - {pl.Null()}) > 1}
    return pl.concat(
        [frame.with_columns(_with_common_types(frame, frames, mixed)) for frame in frames], how="diagonal_relaxed"
    )


def _with_common_types(frame: pl.DataFrame, frames: Sequence[pl.DataFrame], mixed: set[str]) -> list[pl.Series]:
    made = []
    for name in sorted(mixed & set(frame.columns)):
        every = [other[name] for other in frames if name in other.columns]
        if all(isinstance(values.dtype, pl.Datetime) for values in every):
            made.append(in_utc(frame[name]))  # the parts may have different time zones
            continue
        if all(values.dtype.is_temporal() for values in every) or all(values.dtype.is_integer() for values in every):
            continue
        if all(values.dtype.is_numeric() for values in every):
            if all(whole(values) and _fits_int64(values) for values in every):
                made.append(_without_nan(frame[name]).cast(pl.Int64))
            elif all(values.dtype.is_float() or _exact_as_floats(values) for values in every):
                made.append(frame[name].cast(pl.Float64))
            else:
                made.append(frame[name].cast(pl.String))
        elif not frame[name].dtype.is_nested():
            values = _without_nan(frame[name])
            made.append(
                (values.cast(pl.Int64) if values.dtype.is_float() and whole(values) else values).cast(pl.String)
            )
    return made


def _without_nan(values: pl.Series) -> pl.Series:
    return values.fill_nan(None) if values.dtype.is_float() else values


def _fits_int64(values: pl.Series) -> bool:
    return values.dtype != pl.UInt64 or int(values.max() or 0) < 2**63  # type: ignore[arg-type]


def _exact_as_floats(values: pl.Series) -> bool:
    return len(values.drop_nulls()) == 0 or max(abs(int(values.min())), abs(int(values.max()))) < EXACT  # type: ignore[arg-type]


def whole(values: pl.Series) -> bool:
    """Return True if all numbers are exact integers, ignoring missing values and NaN."""
    if values.dtype.is_integer():
        return True
    known = values.cast(pl.Float64).fill_nan(None).drop_nulls()
    return bool(((known == known.floor()) & (known.abs() < EXACT)).all())
