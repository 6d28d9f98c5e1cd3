"""Reading files of a user: every failure names the file, the column, the rows, what was expected and what was found."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from taiji.core.errors import InputError
from taiji.data.schema import SHOWN, positions, row_list

CSV = (".csv", ".tsv", ".txt", ".dat", ".item", ".data", ".user", ".genre")
JSON_LINES = (".jsonl", ".ndjson", ".json")
KINDS = {"number": pl.Float64, "integer": pl.Int64, "text": pl.String}


def kind_of(path: Path) -> str:
    """The file's suffix in lower case, a trailing ``.gz`` left out."""
    return (path.with_suffix("") if path.suffix.lower() == ".gz" else path).suffix.lower()


def read_table(
    path: str | Path,
    columns: Mapping[str, str | None] | None = None,
    *,
    separator: str | None = None,
    header: list[str] | None = None,
    decimal: str = ".",
) -> pl.DataFrame:
    """Read columns of a Parquet, CSV/TSV or JSON-lines file (``.gz`` too).

    Args:
        path: the file.
        columns: name to ``"number"``, ``"integer"``, ``"text"``, or None for as the file has it (text in a CSV, exactly
            as written). None reads all columns as they are.
        separator: of a CSV; by default a tab for ``.tsv`` and a comma otherwise.
        header: column names of a CSV that has no header line.
        decimal: the sign between a number's whole part and its fraction.

    Raises:
        InputError: when the file is missing or unreadable, a column is missing, or a value is not what it should be.
    """
    path = Path(path)
    existing(path)
    kind = kind_of(path)
    try:
        if kind in (".parquet", ".pq"):
            scan = pl.scan_parquet(path)
            require_columns(path, scan.collect_schema().names(), columns)
            frame = (scan.select(list(columns)) if columns is not None else scan).collect()
        elif kind in JSON_LINES:
            frame = pl.DataFrame(list(json_lines(path)), infer_schema_length=None, strict=False)
            require_columns(path, frame.columns, columns)
            frame = frame.select(list(columns)) if columns is not None else frame
        elif kind in CSV:
            frame = _read_csv(
                path, columns, separator or ("\t" if kind == ".tsv" else ","), header, typed=decimal == "."
            )
        else:
            raise InputError(
                "Unknown kind of file.",
                where=str(path),
                expected="a .parquet, .csv, .tsv or .jsonl file (.gz too)",
                found=path.name,
            )
    except (OSError, UnicodeError, pl.exceptions.PolarsError) as error:
        raise unreadable(path, error) from error
    for name, wanted in (columns or {}).items():
        if wanted is not None:
            frame = frame.with_columns(converted(frame[name], wanted, path, decimal))
    return frame


def _read_csv(
    path: Path, columns: Mapping[str, str | None] | None, separator: str, header: list[str] | None, *, typed: bool
) -> pl.DataFrame:
    options: dict[str, Any] = {"separator": separator, "has_header": header is None}
    if header is None:
        names = pl.read_csv(path, n_rows=0, infer_schema=False, **options).columns
        if any("_duplicated_" in name for name in names):  # polars' own name for a column that occurs again
            given = pl.read_csv(path, n_rows=1, infer_schema=False, separator=separator, has_header=False).row(0)
            distinct_columns(path, [name or "" for name in given], columns)
    else:
        width = pl.read_csv(path, n_rows=1, infer_schema=False, **options).width
        names = header[:width]
        if width < len(header):
            raise InputError(
                "A row has too few columns.",
                where=str(path),
                expected=f"{len(header)} columns separated by {separator!r}: {', '.join(header)}",
                found=f"{width} columns",
            )
        options["new_columns"] = names
    require_columns(path, names, columns)
    chosen = list(names if columns is None else columns)
    if typed and columns and any(columns.values()) and header is None:
        # Typed reading takes a fraction of the memory; when a value does not fit, text shows which one.
        kinds = {name: KINDS[kind] if kind else pl.String for name, kind in columns.items()}
        try:
            return pl.read_csv(path, columns=chosen, schema_overrides=kinds, **options)
        except pl.exceptions.ComputeError:
            pass
    return pl.read_csv(path, infer_schema=False, truncate_ragged_lines=False, **options).select(chosen)


def existing(path: Path) -> None:
    """Check that a file is there."""
    if not path.is_file():
        raise InputError(
            "A file is missing.",
            where=str(path),
            expected="a file",
            found="a folder" if path.is_dir() else "nothing",
            fix="check the path",
        )


def unreadable(path: Path, error: Exception) -> InputError:
    """The error of a file that cannot be read."""
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return InputError(
        "Could not read a file.",
        where=str(path),
        expected=f"a well-formed {kind_of(path) or 'data'} file in UTF-8",
        found=first,
        fix="check that the file is whole and of the kind its name says",
    )


def require_columns(path: Path, found: list[str], wanted: Mapping[str, Any] | None) -> None:
    """Check that the columns are there."""
    for name in wanted or ():
        if name not in found:
            raise InputError(
                "A column is missing.",
                where=f"{path}, column {name}",
                expected=f"columns {', '.join(wanted or ())}",
                found=f"columns {', '.join(found) or '(none)'}",
                fix="check the file, its separator, or the mapping",
            )


def distinct_columns(path: Path, names: Sequence[str], wanted: Mapping[str, Any] | None = None) -> None:
    """Check that no wanted name stands over two columns of a CSV; columns without a name do not count."""
    for name, count in Counter(name.strip() for name in names).items():
        if count > 1 and name and (wanted is None or name in wanted):
            raise InputError(
                f"Column {name} occurs {'twice' if count == 2 else f'{count} times'} in {path.name}.",
                where=str(path),
                expected="a name of its own for each column",
                found=f"columns {', '.join(names)}",
                fix="rename or remove one of them in the file: which one is meant cannot be told",
            )


def converted(values: pl.Series, kind: str, path: str | Path, decimal: str = ".") -> pl.Series:
    """Values as ``"number"``, ``"integer"`` or ``"text"``; empty text is a null, anything that does not fit an error with its rows."""
    result = values
    if values.dtype == pl.String and kind != "text":
        values = values.str.strip_chars().replace({"": None})
        if decimal == ",":
            values = values.str.replace_all(".", "", literal=True).str.replace(",", ".", literal=True)
        result = values.cast(KINDS[kind], strict=False)
    elif values.dtype != KINDS[kind]:
        result = values.cast(KINDS[kind], strict=False)
        if kind == "integer" and values.dtype.is_float():
            result = result.set(values.is_not_null() & (values != values.floor()).fill_null(True), None)
    wrong = positions(result.is_null() & values.is_not_null())
    if len(wrong):
        shown = ", ".join(repr(value) for value in values.gather(wrong[:SHOWN]).to_list())
        raise InputError(
            "A value is not what it should be.",
            where=f"{path}, column {values.name}, {row_list(wrong)}",
            expected=f"{'an' if kind == 'integer' else 'a'} {kind}",
            found=shown,
            fix="correct these rows, or name another column in the mapping",
        )
    return result


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON-lines file (``.gz`` too), one by one; a broken line is an error that gives its number."""
    existing(path)
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8")
            if path.suffix.lower() == ".gz"
            else path.open(encoding="utf-8") as stream
        ):
            for number, line in enumerate(stream, start=1):
                if not line.strip():
                    continue
                try:
                    value = json.loads(line)
                except ValueError as error:
                    raise InputError(
                        "A line is no JSON.",
                        where=f"{path}, line {number}",
                        expected="one JSON object a line",
                        found=f"{line.strip()[:60]!r} ({error})",
                        fix="correct the line; an array over several lines must be rewritten, one object a line",
                    ) from error
                if not isinstance(value, dict):
                    raise InputError(
                        "A line is no JSON object.",
                        where=f"{path}, line {number}",
                        expected="one JSON object a line",
                        found=f"{line.strip()[:60]!r}",
                    )
                yield value
    except (OSError, EOFError, UnicodeError) as error:
        raise unreadable(path, error) from error
