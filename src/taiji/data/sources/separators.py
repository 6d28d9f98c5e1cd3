"""Recognise the separator of a delimited text, and explain a file that is not separated as assumed, or is not a
table."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from taiji.core.errors import InputError
from taiji.data.sources.delimited import (
    HEAD,
    NAMES,
    SEPARATORS,
    codec,
    field_counts,
    lines_above,
    named,
    opened,
    text_lines,
)

OTHERS = ("::", " ")
"""Unsupported separators. They are detected only to name them in error messages."""
KINDS = {b"PK\x03\x04": "a zip archive or an Excel file", b"PAR1": "a Parquet file", b"\x1f\x8b": "a gzip file"}
"""First bytes of files that are not text."""
MARKUP = (b"<!doctype", b"<html", b"<?xml", b"<table", b"<head", b"<body")
NUMERIC = re.compile(r"^-?\d+([.,]\d+)?$")
SHOWN = 60
INSPECTED = 20


def best_separator(lines: Sequence[str]) -> str | None:
    """Return the separator that splits the header and at least 75 % of the first rows into the same number of fields,
    or None.

    A separator that splits all of these lines evenly is preferred; among several, the one with the most fields.
    """
    widths: dict[str, tuple[float, int]] = {}
    for separator in SEPARATORS:
        # The last line may end inside quotes.
        counts = field_counts((lines[:-1] or lines)[lines_above(lines, separator) :][:INSPECTED], separator)
        width = counts[0] if counts else 1
        even = sum(count == width for count in counts) / max(1, len(counts))
        widths[separator] = (
            (float(even == 1), width)
            if width > 1 and even == 1
            else (0.5, width)
            if width > 1 and even >= 0.75
            else (0.0, 1)
        )
    best = max(SEPARATORS, key=lambda separator: widths[separator])
    return best if widths[best][0] else None


def explained(path: Path, assumed: str) -> InputError | None:
    """Return an error that explains why a file cannot be read: it is not a table, or has another separator. Return None
    if neither is the case.

    Args:
        path: the file.
        assumed: separator that the caller assumed.
    """
    if kind := _other_kind(path):
        return InputError(
            "The contents of a file do not match its suffix.",
            where=str(path),
            expected="lines of text, with a separator between the fields",
            found=kind,
            fix="export the table again, or give the file the suffix of its contents (.xlsx, .parquet, .jsonl, .gz)",
        )
    lines = [line for line in islice(text_lines(path), HEAD) if line.strip()]
    if not lines:
        return None
    try:
        return _otherwise_separated(path, lines, assumed)
    except csv.Error:
        return None


def _other_kind(path: Path) -> str:
    """Return a description of a file that is not delimited text, otherwise an empty string."""
    with opened(path) as stream:
        start = stream.read(512)
    for mark, kind in KINDS.items():
        if start.startswith(mark):
            return kind
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.lower().startswith(MARKUP):
        return "a web page or XML"
    if text.startswith((b'{"', b'[{"')):
        return "JSON, one object per line" if text.startswith(b"{") else "JSON"
    return "bytes that are not text" if b"\0" in start and not codec(path).startswith("utf-16") else ""


def _otherwise_separated(path: Path, lines: Sequence[str], assumed: str) -> InputError | None:
    above = lines_above(lines, assumed)
    best = best_separator(lines)
    first, quoted = lines[0].strip(), [line.strip() for line in lines]
    if all(line.startswith('"') and line.endswith('"') and len(_cells(line, assumed)) == 1 for line in quoted):
        inner = _cells(first, assumed)[0]
        if (within := best_separator([_cells(line, assumed)[0] for line in quoted])) is not None:
            return InputError(
                "Each line of a file is enclosed in quotes, so that it is a single field.",
                where=f"{path}, line 1",
                expected=f"fields separated by {named(assumed)}, with quotes around single fields only",
                found=first[:SHOWN],
                fix=f"write the lines without the outer quotes, as in: {inner[:SHOWN]} (they are then separated by {named(within)})",
            )
    body = lines[above or 1 :] or lines
    width, head = _usual_width(body, assumed), lines[above - 1] if above else lines[0]
    of_head = next((s for s in SEPARATORS if s != assumed and width > 1 and len(_cells(head, s)) == width), None)
    values = not above or any(
        NUMERIC.match(cell.strip()) for cell in _cells(body[0], assumed)
    )  # a first line without numbers is the header, and the line above it is a title
    if of_head and values and len(_cells(head, assumed)) != width:
        return InputError(
            "The header of a file uses a different separator from its rows.",
            where=f"{path}, line {max(above, 1)}",
            expected=f"{named(assumed)}, as in the rows: {body[0].strip()[:SHOWN]!r}",
            found=f"{named(of_head)}: {head.strip()[:SHOWN]!r}",
            fix=f"write the header with {named(assumed)}",
        )
    if best is not None and best != assumed and (width <= 1 or _usual_width(lines, best) > width):
        return InputError(
            "A file does not have the assumed separator.",
            where=f"{path}, line 1",
            expected=f"fields separated by {named(assumed)}",
            found=f"what seem to be fields separated by {named(best)}: {first[:SHOWN]!r}",
            fix=f"write `separator: {_yaml(best)}` below `file: {path.name}` in the mapping (or let `taiji init` propose it), "
            f"or export the file with {named(assumed)}",
        )
    for other in OTHERS if best is None else ():
        counts = {len(line.strip().split(other)) for line in lines[:-1] or lines}
        if len(lines) > 2 and len(counts) == 1 and max(counts) > 2:
            return InputError(
                "A file has a separator that is not supported.",
                where=f"{path}, line 1",
                expected=f"fields separated by {named(assumed)} (or {', '.join(NAMES[s] for s in SEPARATORS[:4] if s != assumed)})",
                found=f"what seem to be fields separated by {named(other)}: {first[:SHOWN]!r}",
                fix=f"export the file with commas or tabs, for instance: sed 's/{other}/\\t/g' {path.name} > new.tsv",
            )
    return None


def _cells(line: str, separator: str) -> list[str]:
    return next(csv.reader([line.rstrip("\r\n")], delimiter=separator), [])


def _usual_width(lines: Sequence[str], separator: str) -> int:
    """Return the most frequent number of fields per line."""
    counts = [len(_cells(line, separator)) for line in lines[:INSPECTED]]
    return max(sorted(set(counts)), key=counts.count, default=0)


def _yaml(separator: str) -> str:
    return (
        f'"{separator}"'
        if separator.isprintable()
        else {"\t": '"\\t"', "\x01": '"\\x01"'}.get(separator, repr(separator))
    )
