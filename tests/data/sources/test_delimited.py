"""Delimited text: what is read is what was written, and a line that is no row is told by its number."""

from __future__ import annotations

import gzip

import polars as pl
import pytest

from taiji.data.sources.delimited import read_delimited

GOOD = [("1", "x", "3"), ("4", "y", "6")]


def read(tmp_path, text, separator=",", encoding="utf-8", name="t.csv", **options):
    content = text if isinstance(text, bytes) else text.encode(encoding)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return read_delimited(tmp_path / name, separator, **options)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_every_encoding_gives_the_same_rows(tmp_path, encoding, name, end):
    found = read(tmp_path, end.join(["a,b,c", "1,Käse,3", "4,y,6", ""]), encoding=encoding, name=name)
    assert found.frame.rows() == [("1", "Käse", "3"), ("4", "y", "6")]
    assert found.frame.columns == ["a", "b", "c"] and not found.broken


@pytest.mark.parametrize(
    ("text", "rows", "broken"),
    [
        ("1,x,3\n4,y\n4,y,6\n", GOOD, [(3, "2 fields instead of 3")]),
        (
            "1,x,3\n4,y,6,7\n4,y,6\n",
            GOOD,
            [(3, "4 fields instead of 3; does a field without quotes contain the separator?")],
        ),
        ("1,x,3\n4,y,6\n7,z", GOOD, [(4, "2 fields instead of 3")]),
        ("1,x,3\n\n4,y,6\n\n", GOOD, []),
        ('1,"x,3\n1,x,3\n4,y,6\n', GOOD, [(2, "an unclosed quote")]),
        ('1,"x"y,3\n1,x,3\n4,y,6\n', GOOD, [(2, "misplaced quotes")]),
        ('1,5" x,3\n4,7" y,6\n', [("1", '5" x', "3"), ("4", '7" y', "6")], []),
        ('1,"x, or ""y""",3\n4,y,6\n', [("1", 'x, or "y"', "3"), GOOD[1]], []),
        ('1,"x \\"y\\", z",3\n4,y,6\n', [("1", 'x "y", z', "3"), GOOD[1]], []),
        ('1,"x\ny",3\n4,y,6\n', [("1", "x\ny", "3"), GOOD[1]], []),
        ('1,"x,3\n\n1,x,3\n4,y,6\n', GOOD, [(2, "an unclosed quote")]),
        ("1,x,3,\n4,y,6,\n", GOOD, []),
        ("1,x,\n4,,6\n", [("1", "x", None), ("4", None, "6")], []),
        ("", [], []),
    ],
    ids=[
        "too few",
        "too many",
        "cut",
        "blank lines",
        "open quote",
        "wrong quote",
        "inches",
        "doubled quotes",
        "backslashes",
        "line break in quotes",
        "open quote and a blank line",
        "a separator at the end",
        "empty cells",
        "no rows",
    ],
)
def test_rows_are_kept_and_broken_lines_are_reported(tmp_path, text, rows, broken):
    for types in (None, {"a": pl.String, "b": pl.String, "c": pl.String}):
        found = read(tmp_path, "a,b,c\n" + text, types=types)
        assert found.frame.rows() == rows
        assert [(line.line, line.found) for line in found.broken] == broken


def test_a_line_that_is_no_row_is_left_out_of_a_single_column_too(tmp_path):
    found = read(tmp_path, "a,b,c\n1,x,3\n4,y,6,7\n8,z,9\n", types={"a": pl.Int64})
    assert found.frame["a"].cast(pl.Int64).to_list() == [1, 8]
    assert [line.line for line in found.broken] == [3]


def test_types_hold_where_every_value_fits_and_large_integers_keep_their_digits(tmp_path):
    big = 9_007_199_254_740_993
    found = read(tmp_path, f"a,b\n{big},1.5\n", types={"b": pl.Float64, "a": pl.Int64})
    assert found.frame.rows() == [(1.5, big)]
    assert read(tmp_path, "a,b\nx,1.5\n", types={"a": pl.Int64}).frame.rows() == [("x",)]


def test_an_atomic_file_has_plain_names(tmp_path):
    text = "item_id:token\ttitle:token\ttags:token_seq\n1\tGreen tea\tdrink hot\n"
    found = read(tmp_path, text, "\t", name="shop.item")
    assert found.frame.columns == ["item_id", "title", "tags"]
    assert found.frame.rows() == [("1", "Green tea", "drink hot")]


@pytest.mark.parametrize("text", ["u\nx\ny\n\n", "u\nx\n\ny\n", "u\nx\ny\n"], ids=["last", "inner", "none"])
def test_a_blank_line_moves_no_header_of_a_single_column(tmp_path, text):
    found = read(tmp_path, text)
    assert found.frame.columns == ["u"] and found.frame.drop_nulls().rows() == [("x",), ("y",)]


def test_the_first_lines_alone(tmp_path):
    found = read(tmp_path, "a,b\n1,2\n3,4\n5\n", rows=2)
    assert found.frame.rows() == [("1", "2"), ("3", "4")] and not found.broken


def test_lines_may_end_as_on_old_machines(tmp_path):
    assert read(tmp_path, "a,b\r1,2\r3,4\r").frame.rows() == [("1", "2"), ("3", "4")]


@pytest.mark.parametrize(
    "above",
    ["sep=,\n", "Export of all orders\n\n", "# exported today\n# by the shop, in full\n", "\n\n"],
    ids=["separator", "title", "comments", "blank lines"],
)
def test_lines_above_the_header_are_no_part_of_the_table(tmp_path, above):
    found = read(tmp_path, f"{above}a,b,c\n1,x,3\n4,y,6\n")
    assert found.frame.rows() == GOOD and found.frame.columns == ["a", "b", "c"] and not found.broken


def test_a_header_behind_a_hash_is_a_header(tmp_path):
    assert read(tmp_path, "#a,b,c\n1,x,3\n4,y,6\n").frame.columns == ["#a", "b", "c"]


def test_a_header_among_the_rows_is_no_row(tmp_path):
    found = read(tmp_path, "a,b,c\n1,x,3\na,b,c\n4,y,6\n")
    assert found.frame.rows() == GOOD and [(line.line, line.found) for line in found.broken] == [
        (3, "the header is repeated")
    ]
