"""Files of a folder: separators, headers, and what is broken."""

from __future__ import annotations

import gzip

import polars as pl
import pytest

from taiji.core.errors import TaijiError
from taiji.data.discovery.table_files import read_tables

ROWS = [["user", "item", "time"], ["u1", "i 1", "100"], ["u2", 'i "2"', "200"]]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_separators_and_byte_order_marks(tmp_path, separator, mark):
    (tmp_path / "log.csv").write_text(
        mark + "\n".join(separator.join(row) for row in ROWS).replace('i "2"', "i2"), encoding="utf-8"
    )
    table = read_tables(tmp_path)[0][0]
    assert table.separator == separator
    assert table.frame.rows() == [("u1", "i 1", "100"), ("u2", "i2", "200")]


def test_a_csv_without_a_header_gets_names(tmp_path):
    (tmp_path / "log.csv").write_text("7,8,100\n9,8,200\n")
    table = read_tables(tmp_path)[0][0]
    assert table.header == ("column_1", "column_2", "column_3")
    assert len(table.frame) == 2


def test_other_kinds(tmp_path):
    with gzip.open(tmp_path / "a.csv.gz", "wt") as stream:
        stream.write("x;y\n1;2\n")
    (tmp_path / "b.jsonl").write_text('{"x": 1}\n{"x": 2, "y": [1]}\n')
    pl.DataFrame({"x": [1]}).write_parquet(tmp_path / "c.parquet")
    (tmp_path / "d.xlsx").write_bytes(b"PK")
    (tmp_path / "e.csv").write_text("x,y\n")
    tables, notes = read_tables(tmp_path)
    assert [table.path.name for table in tables] == ["a.csv.gz", "b.jsonl", "c.parquet"]
    assert any("d.xlsx" in note for note in notes) and any("e.csv" in note for note in notes)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.parquet", b"no parquet", "a.parquet"),
        ("a.csv", b"", "a.csv"),
        ("a.csv", "name;Stückzahl\nKäse;2\n".encode("cp1252"), "iconv"),
        ("a.csv", "名称,数量\n奶酪,2\n".encode("gb18030"), "iconv"),
        ("a.csv", b"x,y\n1,2,3,4\n", "a.csv"),
        ("a.csv", b"user;ts;ts\nu;v;w\n", r"Column ts occurs twice in a\.csv"),
        ("a.csv.gz", gzip.compress(b"ts,x,ts,ts\nu,v,w,x\n", mtime=0), r"Column ts occurs 3 times in a\.csv\.gz"),
        ("a.jsonl", b"{}\n[", "line 2"),
        ("a.csv.gz", b"no gzip", "a.csv.gz"),
        ("a.xlsx", b"PK", "a.xlsx"),
    ],
    ids=[
        "not parquet",
        "empty",
        "cp1252",
        "gb18030",
        "ragged",
        "column twice",
        "column three times",
        "cut off",
        "not gzip",
        "workbook",
    ],
)
def test_broken_files_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TaijiError, match=message):
        read_tables(tmp_path)


def test_folders_that_are_none_or_hold_only_folders(tmp_path):
    with pytest.raises(TaijiError, match="nothing"):
        read_tables(tmp_path / "none")
    (tmp_path / "inner").mkdir()
    with pytest.raises(TaijiError, match=r"taiji init .*inner"):
        read_tables(tmp_path)


def test_columns_without_a_name_may_be_several(tmp_path):
    (tmp_path / "a.csv").write_text("x,y,,\na,b,,\n")
    assert read_tables(tmp_path)[0][0].columns.keys() == {"x", "y"}
