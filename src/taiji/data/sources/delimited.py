"""Read delimited text: detect encodings, typed headers, and invalid lines.

Polars reads the file. It fills missing fields with nulls, and it reads the lines after a stray quote as part of one
field. Its result is therefore compared with the lines of the file. If they do not match, the lines are read one by one
to find the invalid ones.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import polars as pl

UTF8 = "utf-8-sig"
CODECS = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
"""Byte-order marks of encodings other than UTF-8."""
TYPED = re.compile(r"^(.+):(token|float|token_seq|float_seq)$")
"""Pattern of a column name in a RecBole atomic file: ``user_id:token``."""
Kind = pl.DataType | type[pl.DataType]
SEPARATORS = (",", ";", "\t", "|", "^", "~", "\x01")
"""Supported separators."""
NAMES = {
    ",": "commas",
    ";": "semicolons",
    "\t": "tabs",
    "|": "vertical bars",
    "^": "carets",
    "~": "tildes",
    "\x01": "control characters \\x01",
    "::": "double colons",
    " ": "spaces",
}
HEAD = 60
"""Number of first lines in which to look for the header."""
SEPARATED = re.compile(r"""^["']?sep=.["']?\s*$""")
"""Pattern of the line above the header with which spreadsheets declare the separator."""
LONGEST = 200
"""Largest number of lines in a record with line breaks inside quotes."""


@dataclass(frozen=True)
class Broken:
    """Invalid line: its number (counted from 1), the problem, and its text."""

    line: int
    found: str
    text: str


@dataclass(frozen=True)
class Lines:
    """Rows and invalid lines of a delimited file."""

    frame: pl.DataFrame
    broken: tuple[Broken, ...] = ()


def named(separator: str) -> str:
    """Return a separator in words, for messages."""
    return NAMES.get(separator, repr(separator))


def opened(path: Path) -> io.BufferedIOBase:
    """Open a file for reading bytes, decompressing ``.gz``."""
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb")  # type: ignore[return-value]


def codec(path: Path) -> str:
    """Return the encoding of a text file: UTF-16 if its byte-order mark or its zero bytes indicate it, otherwise
    UTF-8."""
    with opened(path) as stream:
        start = stream.read(512)
    for mark, name in CODECS:
        if start.startswith(mark):
            return name
    even, odd = start[0::2].count(0), start[1::2].count(0)
    if odd > 0.4 * len(start) / 2 and not even:
        return "utf-16-le"
    if even > 0.4 * len(start) / 2 and not odd:
        return "utf-16-be"
    return UTF8


def text_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a file as text, including the line ends."""
    with opened(path) as stream:
        yield from io.TextIOWrapper(stream, encoding=codec(path), newline="")  # type: ignore[type-var]


def read_delimited(
    path: Path,
    separator: str,
    header: Sequence[str] | None = None,
    *,
    types: Mapping[str, Kind] | None = None,
    rows: int | None = None,
) -> Lines:
    """Read a delimited file.

    Args:
        path: the file.
        separator: separator of the cells, one character.
        header: column names for a file without a header line.
        types: columns to read, with their types; None reads all columns as text. If a value does not fit its type, all
            columns are text.
        rows: approximate number of lines to read; None reads all.
    """
    given, skipped = (list(header), 0) if header else _first_line(path, separator)
    names = unique_names(plain_names(given))
    source: Path | bytes = path
    if rows is not None or path.suffix.lower() == ".gz" or codec(path) != UTF8:
        source = "".join(islice(text_lines(path), None if rows is None else rows + skipped)).encode()
    wanted = list(names if types is None else types)
    if not names:
        return Lines(pl.DataFrame(schema=dict.fromkeys(wanted, pl.String)))
    frame = _scan(source, separator, names, skipped, list(wanted), types or {})
    broken: tuple[Broken, ...] = ()
    repeated = skipped > 0 and frame is not None and _header_repeated(frame)
    if frame is None or repeated or not _matches_lines(source, len(frame), separator, len(names), skipped):
        lines = text_lines(path) if isinstance(source, Path) else io.StringIO(source.decode(), newline="")
        frame, broken = _one_by_one(lines, separator, names, skipped)
        if rows is not None:  # the last record may be cut by the row limit rather than broken in the file
            broken = tuple(line for line in broken if line.found != OPEN or line.line <= rows + skipped - LONGEST)
    frame = frame.select(wanted)
    return Lines(frame, broken)


def _header_repeated(frame: pl.DataFrame) -> bool:
    """Return True if the header is repeated among the rows, as in concatenated files."""
    if frame.width < 2 or set(frame.dtypes) != {pl.String}:
        return False
    return bool(
        frame.select(pl.all_horizontal(pl.col(name).str.strip_chars() == name for name in frame.columns).any()).item()
    )


def names_of(path: Path, separator: str) -> list[str]:
    """Return the column names in the header of a file, without the types that a RecBole atomic file adds."""
    return plain_names(_first_line(path, separator)[0])


def plain_names(names: Iterable[str]) -> list[str]:
    """Remove surrounding spaces from column names, and the types that a RecBole atomic file adds to them."""
    names = [name.strip() for name in names]
    found = [TYPED.match(name) for name in names]
    return [match[1] for match in found if match] if found and all(found) else names


def sequences_of(path: Path, separator: str) -> tuple[str, ...]:
    """Return the columns of a RecBole atomic file that hold several values separated by spaces."""
    given = _first_line(path, separator)[0]
    return tuple(
        name
        for name, shown in zip(plain_names(given), given)
        if name != shown.strip() and shown.strip().endswith("_seq")
    )


def unique_names(names: Iterable[str]) -> list[str]:
    """Make column names unique by appending the position to an empty or repeated name."""
    seen: set[str] = set()
    made = []
    for place, name in enumerate(names, start=1):
        own = name if name and name not in seen else f"{name or 'column'}_{place}"
        seen.add(own)
        made.append(own)
    return made


def _first_line(path: Path, separator: str) -> tuple[list[str], int]:
    """Return the cells of the header, and the number of lines up to and including it."""
    above = lines_above(list(islice(text_lines(path), HEAD)), separator)
    for number, line in enumerate(text_lines(path), start=1):
        if number > above and line.strip():
            return next(csv.reader([line.rstrip("\r\n")], delimiter=separator)), number
    return [], 0


def lines_above(lines: Sequence[str], separator: str) -> int:
    """Count the lines above the header of a file: a title, comments, ``sep=;``, and blank lines between them."""
    widths = [len(next(csv.reader([line.rstrip("\r\n")], delimiter=separator), [])) for line in lines]
    usual, _ = max(Counter(width for width in widths if width > 1).items(), key=lambda entry: entry[1], default=(0, 0))
    for place, (line, width) in enumerate(zip(lines, widths)):
        if SEPARATED.match(line):
            continue
        if usual and width == usual:
            return place
        if width > 1 and not line.startswith("#"):
            return 0
    return 0


def _scan(
    source: Path | bytes, separator: str, names: list[str], skipped: int, wanted: list[str], types: Mapping[str, Kind]
) -> pl.DataFrame | None:
    """Read the file with Polars: with the given types or, if a value does not fit its type, as text. Return None if
    Polars fails."""
    for chosen in (types, {}) if types else ({},):
        schema = {name: chosen.get(name, pl.String) for name in names}
        try:
            scan = pl.scan_csv(source, separator=separator, has_header=False, skip_rows=skipped, schema=schema)
            return scan.select(wanted).collect()
        except pl.exceptions.NoDataError:
            return pl.DataFrame(schema=schema).select(wanted)
        except pl.exceptions.PolarsError:
            continue
    return None


def _matches_lines(source: Path | bytes, rows: int, separator: str, width: int, skipped: int) -> bool:
    """Return True if every line of the file is one row with one field per column."""
    if not rows:
        given = text_lines(source) if isinstance(source, Path) else source.decode().splitlines()
        return not any(line.strip() for line in islice(given, skipped, None))
    lines = pl.scan_csv(
        source, separator="\x01", quote_char=None, has_header=False, schema={"line": pl.String}, skip_rows=skipped
    )
    line = pl.col("line")
    bare = line.str.replace_all('"[^"]*"', "")
    try:
        count, fields, quotes = (
            lines.select(
                pl.len(),
                (bare.str.count_matches(separator, literal=True) == width - 1).fill_null(False).all(),
                (bare.str.contains('"', literal=True) | line.str.contains('\\"', literal=True)).any().alias("quotes"),
            )
            .collect(engine="streaming")
            .row(0)
        )
    except pl.exceptions.PolarsError:
        return False
    return count == rows and bool(fields) and not quotes


def _one_by_one(
    lines: Iterable[str], separator: str, names: list[str], skipped: int
) -> tuple[pl.DataFrame, tuple[Broken, ...]]:
    """Read the lines one by one. Return the valid lines as rows of text, and the invalid lines."""
    broken: list[Broken] = []
    rows = list(_records(lines, separator, names, skipped, broken))
    columns = zip(*rows) if rows else ((),) * len(names)
    frame = pl.DataFrame(
        [pl.Series(name, column, pl.String).replace({"": None}) for name, column in zip(names, columns)]
    )
    return frame, tuple(broken)


def _records(
    lines: Iterable[str], separator: str, names: list[str], skipped: int, broken: list[Broken]
) -> Iterator[list[str]]:
    """Yield the records. A record may have line breaks inside quotes, unless one of its lines is a complete row by
    itself."""
    width = len(names)
    waiting: deque[tuple[int, str]] = deque()
    stream = enumerate(lines, start=1)
    for _ in range(skipped):
        next(stream, None)
    while True:
        if not waiting:
            waiting.extend(islice(stream, 1))
            if not waiting:
                return
        number, line = waiting.popleft()
        if not line.strip():
            continue
        row, wrong = _cells(line, separator, width)
        inner: list[tuple[int, str]] = []
        text = line
        while row is None and wrong == OPEN and len(inner) < LONGEST:
            if not waiting:
                waiting.extend(islice(stream, 1))
            if not waiting:
                break
            inner.append(waiting.popleft())
            text += inner[-1][1]
            if _cells(inner[-1][1], separator, width)[0] is not None:
                break
            row, wrong = _cells(text, separator, width)
        if row is None:
            waiting.extendleft(reversed(inner))
            broken.append(Broken(number, wrong, line.strip()[:60]))
        elif skipped and plain_names(row) == names:
            broken.append(Broken(number, "the header is repeated", line.strip()[:60]))
        else:
            yield row


def field_counts(lines: Sequence[str], separator: str) -> list[int]:
    """Return the number of fields in each record among the first lines of a file."""
    if any('\\"' in line for line in lines):
        return [len(row) for row in csv.reader(lines, delimiter=separator, escapechar="\\")]
    return [len(row) for row in csv.reader(lines, delimiter=separator)]


OPEN = "an unclosed quote"


def _cells(text: str, separator: str, width: int) -> tuple[list[str] | None, str]:
    """Split a record into its fields, or return None and the problem. A backslash escapes a quote only if the record is
    invalid otherwise."""
    text = text.rstrip("\r\n")
    wrong = OPEN
    for escape in (None, "\\") if '\\"' in text else (None,):
        try:
            row = next(
                csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True, escapechar=escape), []
            )
        except csv.Error as error:
            wrong = OPEN if "unexpected end" in str(error) else "misplaced quotes"
            continue
        if len(row) == width + 1 and not row[-1]:
            row.pop()
        if len(row) == width:
            return row, ""
        wrong = _wrong_width(text, separator, len(row), width)
    return None, wrong


def _wrong_width(text: str, separator: str, found: int, width: int) -> str:
    """Describe a record with a wrong number of fields, and the likely cause if its text shows one."""
    wrong = f"{found} field{'' if found == 1 else 's'} instead of {width}"
    for other in SEPARATORS:
        if other != separator and text.count(other) == width - 1 > 0:
            return f"{wrong} when separated by {named(separator)}, but {width} when separated by {named(other)}"
    if found > width and re.search(rf"(^|{re.escape(separator)})'[^']*{re.escape(separator)}", text):
        return f"{wrong}; quotes around a field must be double quotes"
    return f"{wrong}; does a field without quotes contain the separator?" if found > width else wrong
