"""Files that are not separated as assumed, or are no tables: one short message that names the separators and the
line."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from taiji.core.errors import InputError
from taiji.data.discovery.table_files import read_tables
from taiji.data.sources.files import read_table
from taiji.data.sources.separators import best_separator

HEADER = ["user", "item", "time", "note"]
ROWS = [[f"u{n % 7}", f"i{n % 11}", str(1_700_000_000 + n), "a, b" if n % 3 else "c"] for n in range(40)]


def text(separator: str, rows: list[list[str]]) -> str:
    stream = io.StringIO()
    csv.writer(stream, delimiter=separator, lineterminator="\n").writerows(rows)
    return stream.getvalue()


def joined(separator: str, rows: list[list[str]]) -> str:
    return "".join(separator.join(row).replace(", ", "_") + "\n" for row in rows)


COMMAS = text(",", [HEADER, *ROWS])
LINES = COMMAS.splitlines(keepends=True)
QUOTED = "".join('"' + line.rstrip("\n").replace('"', '""') + '"\n' for line in LINES)


def told(call: object, *arguments: object, **options: object) -> str:
    with pytest.raises(InputError) as caught:
        call(*arguments, **options)  # type: ignore[operator]
    message = str(caught.value)
    assert len(message) < 700 and "log.csv" in message and "Error" not in message and "codec" not in message, message
    return message


@pytest.mark.parametrize("separator", [";", "\t", "|", "^", "~", "\x01"])
def test_another_separator_is_recognised_and_named_beside_the_assumed_one(tmp_path: Path, separator: str) -> None:
    (tmp_path / "log.csv").write_text(text(separator, [HEADER, *ROWS]))
    (table,), _ = read_tables(tmp_path)
    assert table.separator == separator and table.frame.rows() == [tuple(row) for row in ROWS]
    message = told(read_table, tmp_path / "log.csv", {"user": None, "time": "integer"})
    assert "separated by commas" in message and "line 1" in message and "separator: " in message
    assert read_table(tmp_path / "log.csv", {"user": None}, separator=separator).height == len(ROWS)


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (text(";", [HEADER]) + "".join(LINES[1:]), ["line 1", "header", "commas", "semicolons"]),
        (joined("::", [HEADER, *ROWS]), ["line 1", "commas", "double colons", "sed"]),
        (joined(" ", [HEADER, *ROWS]), ["line 1", "commas", "spaces"]),
        (QUOTED, ["line 1", "quotes", "commas"]),
        ("<!DOCTYPE html>\n<p>Not found, sorry</p>\n", ["web page"]),
        ('{"user": "u1", "item": "i1", "time": 3}\n' * 20, ["JSON", ".jsonl"]),
        ("PK\x03\x04" + "\x00\x01" * 300, ["Excel", ".xlsx"]),
        ("\x00\x01\x02" * 300, ["not text"]),
    ],
    ids=["header", "double colons", "spaces", "quoted lines", "web page", "JSON", "workbook", "bytes"],
)
def test_what_cannot_be_read_is_explained_by_init_and_by_a_run(tmp_path: Path, content: str, parts: list[str]) -> None:
    (tmp_path / "log.csv").write_text(content)
    for message in (told(read_tables, tmp_path), told(read_table, tmp_path / "log.csv", {"user": None, "time": None})):
        assert all(part in message for part in parts), message


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("".join(LINES[1:]), ["line 1", "does not look like a header", "among them user", "header:"]),
        ("user\n" + "u1\n" * 9, ["column item", "columns user (separated by commas)"]),
        ("", ["an empty file"]),
        (LINES[0] + text(";", ROWS), ["line 2", "1 field instead of 4 when separated by commas, but 4", "semicolons"]),
        ("".join(LINES[:20]) + text(";", ROWS[19:]), ["line 21", "4 when separated by semicolons"]),
        (LINES[0].rstrip() + ",more\n" + "".join(LINES[1:]), ["line 2", "4 fields instead of 5"]),
        (COMMAS.replace('"', "'"), ["line 3", "5 fields instead of 4", "double quotes"]),
        (COMMAS.replace('"', ""), ["line 3", "5 fields instead of 4", "without quotes"]),
        (COMMAS.replace('b"', "b", 1), ["line 3", "an unclosed quote"]),
    ],
    ids=["no header", "one column", "empty", "rows", "from the middle", "header too long", "single quotes", "no quotes", "open"],
)  # fmt: skip
def test_what_a_run_does_not_find_names_the_line_and_the_likely_cause(
    tmp_path: Path, content: str, parts: list[str]
) -> None:
    (tmp_path / "log.csv").write_text(content)
    message = told(read_table, tmp_path / "log.csv", {"user": None, "item": None})
    assert all(part in message for part in parts), message


def test_another_encoding_is_named_without_the_words_of_the_decoder(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(COMMAS.replace("c\n", "schön\n").encode("cp1252"))
    assert "iconv" in told(read_table, tmp_path / "log.csv", {"user": None})


def test_a_title_above_the_header_is_not_a_header_with_another_separator(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("shop; year; who; page\n" + COMMAS)
    (table,), _ = read_tables(tmp_path)
    assert table.frame.columns == HEADER and len(table.frame) == len(ROWS)


def test_a_text_without_a_separator_has_none() -> None:
    assert best_separator(["one\n", "two words\n", "three\n"]) is None
