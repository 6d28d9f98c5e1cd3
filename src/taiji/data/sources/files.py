"""Read a user's files. Every error names the file, the column, the rows, what was expected and what was found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from taiji.core.errors import InputError
from taiji.core.foreign_json import parsed
from taiji.core.optional import needs
from taiji.data.schema import SHOWN, positions, row_list
from taiji.data.sources.delimited import Broken, named, names_of, read_delimited, text_lines, unique_names
from taiji.data.sources.file_parts import Part, is_pattern, parts_of, stacked, with_partition
from taiji.data.sources.separators import NUMERIC, explained

CSV = (".csv", ".tsv", ".txt", ".dat", ".item", ".data", ".user", ".genre", ".inter")
JSON_LINES = (".jsonl", ".ndjson", ".json")
PARQUET = (".parquet", ".pq")
EXCEL = (".xlsx", ".xlsm", ".xlsb", ".xls")
SUFFIXES = (*PARQUET, *CSV, *JSON_LINES, *EXCEL)
"""Suffixes of the files that can be read."""
KINDS = {"number": pl.Float64, "integer": pl.Int64, "text": pl.String}


def kind_of(path: Path) -> str:
    """Return the suffix of a file in lower case, without a trailing ``.gz``."""
    return (path.with_suffix("") if path.suffix.lower() == ".gz" else path).suffix.lower()


def read_table(
    path: str | Path,
    columns: Mapping[str, str | None] | None = None,
    *,
    separator: str | None = None,
    header: list[str] | None = None,
    decimal: str = ".",
    broken: list[Broken] | None = None,
) -> pl.DataFrame:
    """Read columns of a Parquet, CSV/TSV, Excel or JSON-lines file (possibly ``.gz``), or of a table in several such
    files.

    Args:
        path: file, folder of parts (possibly hive partitions), or pattern (``log-*.csv``).
        columns: columns to read, each with its type: ``"number"``, ``"integer"``, ``"text"``, or None for the type in
            the file (in a CSV: text, exactly as written). If the argument is None, all columns are read, with the types
            in the file.
        separator: separator of a CSV; by default a tab for ``.tsv`` and a comma otherwise.
        header: column names for a CSV without a header line.
        decimal: decimal separator of numbers.
        broken: list to which skipped invalid lines are added; None raises an error that names them.

    Raises:
        InputError: the file is missing or unreadable, a column is missing, or a value is invalid.
    """
    path = Path(path)
    if not path.is_dir() and not is_pattern(path.name):
        return _read_part(Part(path), columns, separator, header, decimal, broken)
    parts = parts_of(path, SUFFIXES)
    if not parts:
        raise InputError(
            "A file is missing.",
            where=str(path),
            expected=f"files with one of the suffixes {', '.join(SUFFIXES[:4])}, …",
            found="a folder without such files" if path.is_dir() else "no file that matches the pattern",
            fix="check the path",
        )
    frames = []
    for part in parts:
        available = columns_of(part, separator, header)
        missing = [name for name in columns or () if name not in available]
        if columns and len(missing) == len(columns):
            require_columns(part.path, available, columns)
        wanted = {name: kind for name, kind in (columns or {}).items() if name not in missing}
        frames.append(_read_part(part, wanted if columns is not None else None, separator, header, decimal, broken))
    everywhere = {name for frame in frames for name in frame.columns}
    require_columns(path, sorted(everywhere), columns)
    frame = stacked(frames)
    return frame.select(list(columns)) if columns is not None else frame


def columns_of(part: Part, separator: str | None = None, header: list[str] | None = None) -> list[str]:
    """Return the column names of a part. For JSON lines and spreadsheets, the whole file is read."""
    kind = kind_of(part.path)
    if kind in PARQUET:
        names = _parquet(part.path).columns
    elif kind in CSV:
        names = header or unique_names(names_of(part.path, separator or ("\t" if kind == ".tsv" else ",")))
    else:
        return list(_read_part(part, None, separator, header, ".", []).columns)
    return [*names, *(name for name in part.values if name not in names)]


def _parquet(path: Path) -> pl.DataFrame:
    """Return an empty frame with the columns of a Parquet file."""
    existing(path)
    try:
        return flat(pl.DataFrame(schema=pl.read_parquet_schema(path)))
    except (OSError, pl.exceptions.PolarsError) as error:
        raise unreadable(path, error) from error


def _read_part(
    part: Part,
    columns: Mapping[str, str | None] | None,
    separator: str | None,
    header: list[str] | None,
    decimal: str,
    broken: list[Broken] | None,
) -> pl.DataFrame:
    path = part.path
    existing(path)
    kind = kind_of(path)
    own = {name: what for name, what in (columns or {}).items() if name not in part.values} or None
    try:
        if kind in PARQUET:
            frame = _read_parquet(path, own)
        elif kind in JSON_LINES:
            frame = frame_of(list(json_lines(path, broken)))
            require_columns(path, frame.columns, own)
            frame = frame.select(list(own)) if own is not None else frame
        elif kind in CSV:
            sign = separator or ("\t" if kind == ".tsv" else ",")
            names, types = _csv_columns(path, own, sign, header, typed=decimal == ".")
            lines = read_delimited(path, sign, names, types=types)
            tell_broken(path, lines.broken, broken)
            frame = lines.frame
        elif kind in EXCEL:
            frame = read_sheet(path)
            require_columns(path, frame.columns, own)
            frame = frame.select(list(own)) if own is not None else frame
        else:
            raise InputError(
                "The kind of a file is not supported.",
                where=str(path),
                expected="a .parquet, .csv, .tsv, .jsonl or .xlsx file (possibly .gz), or a folder of such files",
                found=path.name,
            )
    except (OSError, EOFError, UnicodeError, pl.exceptions.PolarsError) as error:
        raise unreadable(path, error) from error
    for name, wanted in (own or {}).items():
        if wanted is not None:
            frame = frame.with_columns(converted(frame[name], wanted, path, decimal))
    frame = with_partition(frame, part) if columns is None or part.values.keys() & columns.keys() else frame
    return frame if columns is None else frame.select(list(columns))


def _read_parquet(path: Path, columns: Mapping[str, str | None] | None) -> pl.DataFrame:
    scan = pl.scan_parquet(path, hive_partitioning=False)
    schema = scan.collect_schema()
    if columns is None:
        return flat(scan.collect())
    if any(isinstance(kind, pl.Struct) for kind in schema.values()):
        outer = dict.fromkeys(name if name in schema else name.partition(".")[0] for name in columns)
        frame = flat(scan.select([name for name in outer if name in schema]).collect())
        require_columns(path, frame.columns, columns)
        return frame.select(list(columns))
    require_columns(path, schema.names(), columns)
    return flat(scan.select(list(columns)).collect())


def frame_of(rows: list[dict[str, Any]]) -> pl.DataFrame:
    """Return the objects of JSON lines as a frame."""
    return flat(pl.DataFrame(rows, infer_schema_length=None, strict=False))


def flat(frame: pl.DataFrame) -> pl.DataFrame:
    """Expand the fields of nested objects into separate columns (``user.id``), and convert categorical columns to
    text."""
    while any(isinstance(kind, pl.Struct) for kind in frame.schema.values()):
        made: list[pl.Series] = []
        for values in frame.get_columns():
            if isinstance(values.dtype, pl.Struct):
                names = [(field.name, f"{values.name}.{field.name}") for field in values.dtype.fields]
                made += [values.struct.field(inner).alias(name) for inner, name in names if name not in frame.columns]
            else:
                made.append(values)
        frame = pl.DataFrame(made)
    coded = [name for name, kind in frame.schema.items() if kind == pl.Categorical or isinstance(kind, pl.Enum)]
    return frame.with_columns(pl.col(coded).cast(pl.String)) if coded else frame


def _csv_columns(
    path: Path, columns: Mapping[str, str | None] | None, separator: str, header: list[str] | None, typed: bool
) -> tuple[list[str] | None, dict[str, type[pl.DataType]] | None]:
    """Return the column names of a CSV and the types of the columns to read.

    The names are None if the first line of the file holds them; the types are None if all columns are read.

    Raises:
        InputError: a requested column is missing or repeated, or rows are shorter than the given header.
    """
    names = names_of(path, separator)
    if header is None:
        distinct_columns(path, names, columns)
        names = unique_names(names)
    else:
        if len(names) < len(header):
            if wrong := explained(path, separator):
                raise wrong
            raise InputError(
                "A row has too few columns.",
                where=str(path),
                expected=f"{len(header)} columns separated by {named(separator)}: {', '.join(header)}",
                found=f"{len(names)} columns",
            )
        names = [*header, *(f"column_{place}" for place in range(len(header) + 1, len(names) + 1))]
    if missing := [name for name in columns or {} if name not in names]:
        raise explained(path, separator) or _column_missing(path, separator, names, missing[0], header is None, columns)
    # Typed values take a fraction of the memory that texts take. If a value does not fit its type, the file is read
    # again as text to find this value.
    kinds = None if columns is None else {n: KINDS[k] if k and typed else pl.String for n, k in columns.items()}
    return names if header else None, kinds


def _column_missing(
    path: Path, separator: str, names: Sequence[str], missing: str, own: bool, columns: Mapping[str, Any] | None
) -> InputError:
    """Return the error for a CSV that lacks a requested column.

    ``own`` is True if ``names`` come from the first line of the CSV.
    """
    if own and any(NUMERIC.match(name) for name in names):
        return InputError(
            "The first line of a file does not look like a header.",
            where=f"{path}, line 1",
            expected=f"the names of the columns, among them {missing}",
            found=", ".join(names),
            fix=f"write the names into the first line, or write `header: [NAME, …]` below `file: {path.name}` in the mapping",
        )
    return InputError(
        "A column is missing.",
        where=f"{path}, column {missing}",
        expected=f"columns {', '.join(columns or ())}",
        found=f"columns {', '.join(names)} (separated by {named(separator)})" if names else "an empty file",
        fix="check the file, its separator, or the mapping",
    )


def tell_broken(path: Path, found: Sequence[Broken], broken: list[Broken] | None) -> None:
    """Add invalid lines to a list, or raise an error if there is no list.

    Raises:
        InputError: ``broken`` is None and there are invalid lines. The message names the file and the lines, and says
            how to skip them.
    """
    if broken is not None:
        broken.extend(found)
    elif found:
        first = found[0]
        raise InputError(
            "A line cannot be read as a row." if len(found) == 1 else f"{len(found):,} lines cannot be read as rows.",
            where=f"{path}, line{'' if len(found) == 1 else 's'} {', '.join(str(line.line) for line in found[:SHOWN])}"
            + (f" and {len(found) - SHOWN:,} more" if len(found) > SHOWN else ""),
            expected="one field per column of the header, and closed quotes",
            found=f"line {first.line}: {first.found}: {first.text!r}",
            fix="correct the file, or set `unusable: drop` in the mapping to skip and count such lines (taiji init: --set unusable=drop)",
        )


def existing(path: Path) -> None:
    """Raise an error if a file does not exist."""
    if not path.is_file():
        raise InputError(
            "A file is missing.",
            where=str(path),
            expected="a file",
            found="a folder" if path.is_dir() else "nothing",
            fix="check the path; files of a mapping are in the folder data.source, or else beside the mapping",
        )


def unreadable(path: Path, error: Exception) -> InputError:
    """Return the error to raise for an unreadable file."""
    if kind_of(path) in (*CSV, *JSON_LINES) and (isinstance(error, UnicodeError) or "utf-8" in str(error).lower()):
        return InputError(
            "A file is not encoded in UTF-8.",
            where=str(path),
            expected="text in UTF-8 (or UTF-16)",
            found="another encoding (spreadsheet exports often use cp1252, Chinese ones gb18030)",
            fix=f"convert it: iconv -f cp1252 -t utf-8 {path.name} > new.csv   (or -f gb18030), or export Parquet",
        )
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return InputError(
        "Could not read a file.",
        where=str(path),
        expected=f"a well-formed {kind_of(path) or 'data'} file in UTF-8",
        found=first,
        fix="check that the file is complete and that its suffix is correct",
    )


def require_columns(path: Path, found: list[str], wanted: Mapping[str, Any] | None) -> None:
    """Raise an error if one of the ``wanted`` columns does not exist."""
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
    """Raise an error if a requested name occurs twice in a CSV. Columns without a name are ignored."""
    for name, count in Counter(name.strip() for name in names).items():
        if count > 1 and name and (wanted is None or name in wanted):
            raise InputError(
                f"Column {name} occurs {'twice' if count == 2 else f'{count} times'} in {path.name}.",
                where=str(path),
                expected="a unique name for each column",
                found=f"columns {', '.join(names)}",
                fix="rename or remove one of these columns in the file, because the name is ambiguous",
            )


def demand_flat(values: pl.Series, path: str | Path) -> None:
    """Raise an error if a column has lists or structs where one value per row is needed."""
    if values.dtype.is_nested():
        raise InputError(
            "A column has lists where one value is needed.",
            where=f"{path}, column {values.name}",
            expected="one number, text or time in each row",
            found=str(values.dtype),
            fix="write one value into each row, or name another column in the mapping",
        )


def converted(values: pl.Series, kind: str, path: str | Path, decimal: str = ".") -> pl.Series:
    """Convert values to ``"number"``, ``"integer"`` or ``"text"``. An empty text becomes null; any other invalid value
    raises an error that lists the rows."""
    demand_flat(values, path)
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
            "A value has the wrong type.",
            where=f"{path}, column {values.name}, {row_list(wrong)}",
            expected=f"{'an' if kind == 'integer' else 'a'} {kind}",
            found=shown,
            fix="correct these rows, or name another column in the mapping",
        )
    return result


def read_sheet(path: Path) -> pl.DataFrame:
    """Read a spreadsheet in which only one sheet contains rows.

    Raises:
        ResourceError: the package that reads spreadsheets is not installed.
        InputError: several sheets contain rows.
    """
    with needs("excel", where=str(path)):
        import fastexcel  # noqa: F401
    try:
        sheets = pl.read_excel(path, sheet_id=0, engine="calamine", raise_if_empty=False, infer_schema_length=None)
    except Exception as error:  # the reader raises its own error classes
        raise unreadable(path, error) from error
    filled = {name: frame for name, frame in sheets.items() if len(frame)}
    if len(filled) > 1:
        raise InputError(
            "A spreadsheet contains several tables.",
            where=str(path),
            expected="a single sheet with rows",
            found=", ".join(f"{name} ({len(frame):,} rows)" for name, frame in filled.items()),
            fix="save each sheet as a separate file",
        )
    return next(iter(filled.values()), pl.DataFrame())


def json_lines(path: Path, broken: list[Broken] | None = None) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON-lines file (possibly ``.gz``) one by one. A file that holds one array of
    objects is also accepted.

    Args:
        path: the file.
        broken: list to which skipped invalid lines are added; None raises an error for the first one.
    """
    existing(path)
    try:
        if _starts_array(path):
            yield from _array(path)
            return
        for number, line in enumerate(text_lines(path), start=1):
            if not (text := line.strip().removeprefix("\ufeff")):
                continue
            try:
                value = parsed(text, parse_float=_parse_number)
                wrong = None if isinstance(value, dict) else "not an object"
            except ValueError as error:
                value, wrong = None, str(error)
            if wrong is None:
                yield value
            elif broken is not None:
                broken.append(Broken(number, f"not a JSON object ({wrong})", text[:60]))
            else:
                raise InputError(
                    "A line is not a JSON object.",
                    where=f"{path}, line {number}",
                    expected="one JSON object per line",
                    found=f"{text[:60]!r} ({wrong})",
                    fix="correct the line, or set `unusable: drop` in the mapping to skip and count such lines "
                    "(taiji init: --set unusable=drop)",
                )
    except (OSError, EOFError, UnicodeError) as error:
        raise unreadable(path, error) from error


def _starts_array(path: Path) -> bool:
    """Return True if a file holds one array of objects rather than one JSON value per line."""
    first = next((text for line in text_lines(path) if (text := line.strip().removeprefix("\ufeff"))), "")
    return first.startswith("[") and not (first.endswith("]") and len(first) > 2 and first[1:].lstrip()[:1] != "{")


def _array(path: Path) -> Iterator[dict[str, Any]]:
    try:
        values = parsed("".join(text_lines(path)).removeprefix("\ufeff"), parse_float=_parse_number)
    except ValueError as error:
        raise InputError(
            "A file is not valid JSON.",
            where=str(path),
            expected="one JSON object per line, or one array of objects",
            found=str(error),
            fix="correct the file, or write one object per line",
        ) from error
    for number, value in enumerate(values, start=1):
        if not isinstance(value, dict):
            raise InputError(
                "An element is not a JSON object.",
                where=f"{path}, element {number}",
                expected="an array of objects",
                found=f"{str(value)[:60]!r}",
            )
        yield value


def _parse_number(text: str) -> float | int:
    """Parse a JSON number. A number without a fraction becomes an integer, so that ids keep their digits."""
    number = float(text)
    return int(number) if number.is_integer() and abs(number) < 2**53 else number
