"""Files of a folder: separators, headers, and what is broken."""

from __future__ import annotations

import gzip
import json
import sys
import zipfile

import polars as pl
import pytest

from taiji.core.errors import TaijiError
from taiji.data.discovery import table_files
from taiji.data.discovery.propose import propose
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


def test_other_kinds(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fastexcel", None)  # not installed
    with gzip.open(tmp_path / "a.csv.gz", "wt") as stream:
        stream.write("x;y\n1;2\n")
    (tmp_path / "b.jsonl").write_text('{"x": 1}\n{"x": 2, "y": [1]}\n')
    pl.DataFrame({"x": [1]}).write_parquet(tmp_path / "c.parquet")
    (tmp_path / "d.xlsx").write_bytes(b"PK")
    (tmp_path / "e.csv").write_text("x,y\n")
    tables, notes = read_tables(tmp_path)
    assert [table.path.name for table in tables] == ["a.csv.gz", "b.jsonl", "c.parquet"]
    assert any("d.xlsx" in note and "taiji[excel]" in note for note in notes) and any("e.csv" in note for note in notes)


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


def csv(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(",".join(map(str, row)) + "\n" for row in rows))


HEAD, ONE, TWO = ("user", "item", "at"), ("u1", "i1", "x"), ("u2", "i2", "y")


def test_text_for_people_is_left_out_with_a_word(tmp_path):
    csv(tmp_path / "log.csv", HEAD, ONE)
    (tmp_path / "README.txt").write_text("Our shop, as of Monday.\nUsers, items, and times.\n\nAsk Ann.\n")
    (tmp_path / "notes.txt").write_text("todo, later\nnothing\n")
    (tmp_path / "data.txt").write_text("a\tb\n1\t2\n")
    tables, notes = read_tables(tmp_path)
    assert [table.path.name for table in tables] == ["data.txt", "log.csv"]
    assert sorted(note.split(" ")[0] for note in notes) == ["README.txt", "notes.txt"]


@pytest.mark.parametrize("pattern", ["bad.csv", "b*", "*.csv"])
def test_names_can_be_ignored(tmp_path, pattern):
    (tmp_path / "log.jsonl").write_text('{"a": 1, "b": 2}\n')
    (tmp_path / "bad.csv").write_bytes(b"x,y\n\xff\xfe,2\n")
    with pytest.raises(TaijiError, match=r"--ignore bad\.csv"):
        read_tables(tmp_path)
    tables, notes = read_tables(tmp_path, [pattern])
    assert [table.path.name for table in tables] == ["log.jsonl"] and "--ignore" in notes[0]


def test_a_folder_of_parts_is_one_table_and_a_folder_of_tables_is_none(tmp_path):
    csv(tmp_path / "events" / "part-0.csv", HEAD, ONE)
    csv(tmp_path / "events" / "part-1.csv", HEAD, TWO)
    csv(tmp_path / "other" / "log.csv", HEAD, ONE)
    csv(tmp_path / "other" / "items.csv", ("sku", "name", "price"), ("i1", "Tea", 3))
    tables, notes = read_tables(tmp_path)
    assert [table.path.name for table in tables] == ["events"]
    assert tables[0].frame.rows() == [ONE, TWO]
    assert any("other" in note and "taiji init" in note for note in notes)


def test_partitions_are_one_table_at_the_top_too(tmp_path):
    for day in ("2024-01-01", "2024-01-02"):
        csv(tmp_path / f"date={day}" / "part-0.csv", HEAD, ONE)
    (table,), _ = read_tables(tmp_path)
    assert (table.path.name, table.partition) == ("date=*", ("date",))
    assert table.frame["date"].to_list() == ["2024-01-01", "2024-01-02"]


def test_files_that_differ_in_a_number_alone_are_one_table_if_their_columns_are_the_same(tmp_path):
    csv(tmp_path / "log_2023_1.csv", HEAD, ONE)
    csv(tmp_path / "log_2023_12.csv", HEAD, TWO)
    csv(tmp_path / "part-00000-ab12cd.csv", ("a", "b"), (1, 2))
    csv(tmp_path / "part-00001-ef34.csv", ("a", "b"), (3, 4))
    csv(tmp_path / "table1.csv", ("p", "q"), (1, 2))
    csv(tmp_path / "table2.csv", ("r", "s"), (1, 2))
    tables, notes = read_tables(tmp_path)
    assert {table.path.name: len(table.frame) for table in tables} == {
        "log_*.csv": 2,
        "part*.csv": 2,
        "table1.csv": 1,
        "table2.csv": 1,
    }
    assert any("log_*.csv is read as one table of 2 files" in note for note in notes)


def test_roles_of_atomic_files_come_from_their_suffixes(tmp_path):
    (tmp_path / "shop.inter").write_text("user_id:token\titem_id:token\ttimestamp:float\nu\ti\t1.0\n")
    (tmp_path / "shop.item").write_text("item_id:token\ttags:token_seq\ni\thot new\n")
    (tmp_path / "shop.user").write_text("user_id:token\tage:float\nu\t30\n")
    tables, _ = read_tables(tmp_path)
    assert [(table.path.name, *table.means) for table in tables] == [
        ("shop.inter", "events"),
        ("shop.item", "items"),
        ("shop.user", "users"),
    ]
    assert list(tables[0].columns) == ["user_id", "item_id", "timestamp"]
    assert tables[1].frame["tags"].to_list() == ["hot new"] and tables[1].sequences == ("tags",)


def test_json_is_lines_or_one_array_with_a_mark_or_without(tmp_path):
    rows = [{"id": 9_007_199_254_740_993, "price": 1.5}, {"id": 12.0, "price": 2}]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    for text in (lines, "\ufeff" + lines, json.dumps(rows), json.dumps(rows, indent=1)):
        (tmp_path / "a.json").write_text(text, encoding="utf-8")
        ((table,), _) = read_tables(tmp_path)
        assert table.frame["id"].to_list() == [9_007_199_254_740_993, 12]
        assert table.frame["price"].to_list() == [1.5, 2.0]


def test_broken_lines_are_kept_apart(tmp_path):
    (tmp_path / "books.csv").write_text('a;b\n1;x\n2;"y\n3;z;w\n4;v\n5;u\n6;t\n7;s\n8;r\n9;q\n')
    ((table,), _) = read_tables(tmp_path)
    assert table.separator == ";"
    assert table.frame["a"].to_list() == ["1", "4", "5", "6", "7", "8", "9"]
    assert [line.line for line in table.broken] == [3, 4]


def test_categories_are_read_as_text(tmp_path):
    pl.DataFrame({"c": pl.Series(["x", "y"], dtype=pl.Categorical)}).write_parquet(tmp_path / "a.parquet")
    ((table,), _) = read_tables(tmp_path)
    assert table.frame.schema["c"] == pl.String


SHEET = """<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>
<row r="1"><c r="A1" t="inlineStr"><is><t>sku</t></is></c><c r="B1" t="inlineStr"><is><t>name</t></is></c></row>
<row r="2"><c r="A2"><v>7</v></c><c r="B2" t="inlineStr"><is><t>Tea</t></is></c></row></sheetData></worksheet>"""
WORKBOOK = """<workbook xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"
 xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships">
<sheets><sheet name="items" sheetId="1" r:id="rId1"/></sheets></workbook>"""
RELATIONS = """<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1"
 Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/{kind}" Target="{target}"/></Relationships>"""
TYPES = """<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">
<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>
<Override PartName="/xl/workbook.xml" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/>
<Override PartName="/xl/worksheets/sheet1.xml" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml"/>
</Types>"""


def test_a_workbook_with_one_table(tmp_path):
    pytest.importorskip("fastexcel")
    with zipfile.ZipFile(tmp_path / "items.xlsx", "w") as file:
        file.writestr("[Content_Types].xml", TYPES)
        file.writestr("_rels/.rels", RELATIONS.format(kind="officeDocument", target="xl/workbook.xml"))
        file.writestr("xl/workbook.xml", WORKBOOK)
        file.writestr("xl/_rels/workbook.xml.rels", RELATIONS.format(kind="worksheet", target="worksheets/sheet1.xml"))
        file.writestr("xl/worksheets/sheet1.xml", SHEET)
    ((table,), _) = read_tables(tmp_path)
    assert table.frame.rows() == [(7, "Tea")]


def test_ids_beyond_the_first_rows_are_known(tmp_path, monkeypatch):
    monkeypatch.setattr(table_files, "SAMPLE", 3)
    csv(tmp_path / "items.csv", ("sku", "name"), *((f"a{k}", f"Thing {k}") for k in range(9)))
    ((table,), _) = read_tables(tmp_path)
    assert len(table.frame) == 3
    assert table.ids("sku").to_list() == [f"a{k}" for k in range(9)]


def test_versions_of_one_table_are_not_its_parts(tmp_path):
    for year in (2023, 2024):
        csv(tmp_path / f"items_{year}.csv", ("sku", "name"), *((f"a{k}", f"Thing {k} of {year}") for k in range(9)))
    tables, _ = read_tables(tmp_path)
    assert [table.path.name for table in tables] == ["items_2023.csv", "items_2024.csv"]


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("k3,p10,view\nk4,p7,click\nk3,p9,view\n", ["column_1", "column_2", "column_3"]),
        ("ann,bread,01-Jul-23\nbob,milk,02-Jul-23\n", ["column_1", "column_2", "column_3"]),
        ("user,item,action\nk4,p7,click\nk3,p9,action\n", ["user", "item", "action"]),
        (" user , item \nk4,p7\n", ["user", "item"]),
        ("user,item,action\nk4,p7,click\nuser,item,action\nk3,p9,view\n", ["user", "item", "action"]),
    ],
    ids=["values come again", "a date", "a name among the values", "spaces around names", "header again"],
)
def test_a_header_is_distinguished_from_a_row(tmp_path, text, columns):
    (tmp_path / "log.csv").write_text(text)
    assert read_tables(tmp_path)[0][0].frame.columns == columns


def test_lines_above_a_header_are_reported(tmp_path):
    (tmp_path / "log.csv").write_text("sep=;\nuser;item\nk4;p7\n")
    tables, notes = read_tables(tmp_path)
    assert tables[0].frame.rows() == [("k4", "p7")] and any("sep=;" in note for note in notes)


def test_parts_with_reordered_columns_are_one_table_and_repeated_rows_are_counted(tmp_path):
    (tmp_path / "log_2023.csv").write_text(
        "user,item,at\n" + "".join(f"u{k % 7},i{k % 5},2023-01-{k:02d}\n" for k in range(10, 30))
    )
    (tmp_path / "log_2024.csv").write_text(
        "at,user,item\n" + "".join(f"2023-01-{k:02d},u{k % 7},i{k % 5}\n" for k in range(27, 31))
    )
    (table,), notes = read_tables(tmp_path)
    assert table.path.name == "log_*.csv" and len(table.frame) == 24
    assert table.frame.row(23, named=True) == {"user": "u2", "item": "i0", "at": "2023-01-30"}
    assert any("3 rows occur in two of its files" in note for note in notes)


def test_a_log_of_nested_objects_is_proposed_by_the_names_of_its_fields(tmp_path):
    rows = [
        {"user": {"id": f"u{k % 9}"}, "item": {"id": k * 7 % 20}, "ts": 1690000000 + k, "clicked": k % 3 % 2}
        for k in range(200)
    ]
    (tmp_path / "log.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (tmp_path / "items.csv").write_text("item_id,title\n" + "".join(f"{k},Oat thing {k}\n" for k in range(20)))
    made = propose(read_tables(tmp_path)[0])
    assert not made.questions
    assert made.values["events"]["user_id"] == "user.id" and made.values["events"]["item_id"] == "item.id"


def test_times_of_two_units_are_named_where_no_file_can_be_the_log(tmp_path):
    lines = [f"u{k % 9},{k % 20},{(1690000000 + k) * (1000 if k % 2 else 1)}" for k in range(100)]
    (tmp_path / "log.csv").write_text("user,item,timestamp\n" + "\n".join(lines))
    with pytest.raises(TaijiError, match=r"timestamp of log\.csv cannot be read as times"):
        propose(read_tables(tmp_path)[0])
