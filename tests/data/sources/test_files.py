from __future__ import annotations

import gzip
import json

import polars as pl
import pytest
from tests.shops.writers import workbook

from taiji.core.errors import TaijiError
from taiji.data.sources.files import json_lines, read_table

CSV = "id,stars,name\n007,4.5,Ann\n8,,Bob\n"


def fails(*words):
    return pytest.raises(TaijiError, match="(?s)" + ".*".join(words))


@pytest.fixture
def written(tmp_path):
    def write(name, text):
        path = tmp_path / name
        if name.endswith(".gz"):
            path.write_bytes(gzip.compress(text.encode()))
        else:
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_ids_of_a_csv_stay_as_written(written, name):
    frame = read_table(written(name, CSV), {"id": None, "stars": "number"})
    assert frame.rows() == [("007", 4.5), ("8", None)]


def test_all_kinds_give_the_same_frame(written, tmp_path):
    wanted = {"a": "integer", "b": "text"}
    frame = pl.DataFrame({"b": ["x", "y"], "a": [1, 2], "c": [0, 0]})
    frame.write_parquet(tmp_path / "f.parquet")
    texts = {
        "f.csv": "b,a,c\nx,1,0\ny,2,0\n",
        "f.tsv": "b\ta\tc\nx\t1\t0\ny\t2\t0\n",
        "f.jsonl": '{"b":"x","a":1}\n\n{"b":"y","a":2}\n',
    }
    for path in [tmp_path / "f.parquet", *(written(name, text) for name, text in texts.items())]:
        assert read_table(path, wanted).rows() == [(1, "x"), (2, "y")], path
    bare = written("bare.csv", "x;1\ny;2\n")
    assert read_table(bare, wanted, separator=";", header=["b", "a"]).rows() == [(1, "x"), (2, "y")]


def test_a_sheet_keeps_texts_behind_many_numbers(tmp_path):
    pytest.importorskip("fastexcel")
    (tmp_path / "a.xlsx").write_bytes(workbook([("code", "price"), *((n, n) for n in range(150)), ("B12", "abc")]))
    frame = read_table(tmp_path / "a.xlsx", {"code": None, "price": None})
    assert frame["code"].cast(pl.String)[-1] == "B12" and frame["price"].cast(pl.String)[-1] == "abc"
    assert frame["code"].null_count() == 0


def test_a_value_that_does_not_fit_is_named_with_its_rows(written):
    path = written("a.csv", "id,stars\n1,4\n2,many\n3,5\n4,few\n")
    with fails(r"a\.csv, column stars, rows 2, 4", "a number", "'many', 'few'"):
        read_table(path, {"id": None, "stars": "number"})
    with fails("column x, row 1", "an integer", "0.5"):
        read_table(written("b.jsonl", '{"x": 0.5}\n'), {"x": "integer"})


def test_missing_files_and_columns_are_named(written, tmp_path):
    with fails("missing", r"no\.csv", "nothing"):
        read_table(tmp_path / "no.csv", {})
    with fails("A file is missing", "a folder"):
        read_table(tmp_path, {})
    with fails("column who", "columns id, stars, name"):
        read_table(written("a.csv", CSV), {"who": None})
    with fails("kind of a file is not supported", r"a\.orc"):
        read_table(written("a.orc", ""), {})
    with fails("too few columns", "1 columns"):
        read_table(written("b.csv", "1 2\n"), {"a": None}, header=["a", "b"])


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_a_wanted_column_that_occurs_twice_is_named(written, name):
    path = written(name, "id,ts,x,ts\n1,2,3,4\n")
    for columns in ({"ts": None}, {"ts": "integer"}, None):
        with fails("Column ts occurs twice", "columns id, ts, x, ts"):
            read_table(path, columns)
    assert read_table(path, {"x": "integer"}).rows() == [(3,)]
    renamed = written("b.csv", "ts,ts_duplicated_0\n1,2\n")
    assert read_table(renamed, {"ts": None}).rows() == [("1",)], "a name that the file itself gives"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.parquet", b"PAR1 and then nothing"),
        ("a.csv", b""),
        ("a.csv", b"id,b\n\xff\xfe,1\n"),
        ("a.csv", b"id,b\n1,2,3,4\n"),
        ("a.csv.gz", None),
        ("a.jsonl", b"\xff\xfe\n"),
    ],
    ids=["cut off parquet", "empty", "not UTF-8", "ragged", "cut off gzip", "not UTF-8 lines"],
)
def test_unreadable_files_are_one_error(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(gzip.compress(b"id,b\n" + b"1,2\n" * 9999)[:-20] if content is None else content)
    with pytest.raises(TaijiError, match=name.split(".")[0]):
        read_table(path, {"id": None})


def test_a_broken_line_of_json_is_named(written):
    with fails("not a JSON", r"a\.jsonl, line 2", "'{oops'"):
        list(json_lines(written("a.jsonl", '{"a": 1}\n{oops\n')))
    with fails("not a JSON object", "line 1"):
        list(json_lines(written("b.jsonl", "[1]\n")))


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_fields_of_nested_objects_are_columns(tmp_path, kind):
    rows = [{"user": {"id": f"u{k}", "at": {"city": "x"}}, "ts": k} for k in range(3)] + [{"user": None, "ts": 3}]
    path = tmp_path / f"log.{kind}"
    if kind == "parquet":
        pl.DataFrame(rows).write_parquet(path)
    else:
        path.write_text("\n".join(json.dumps(row) for row in rows))
    assert read_table(path).columns == ["user.id", "user.at.city", "ts"]
    assert read_table(path, {"ts": None, "user.id": None}).rows() == [(0, "u0"), (1, "u1"), (2, "u2"), (3, None)]
    with pytest.raises(TaijiError, match=r"user\.name"):
        read_table(path, {"user.name": None})
