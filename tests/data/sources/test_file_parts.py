"""Tables in several files: folders of parts, hive partitions, patterns."""

from __future__ import annotations

import polars as pl
import pytest

from taiji.core.errors import TaijiError
from taiji.data.sources.file_parts import parts_of
from taiji.data.sources.files import read_table

BIG = 9_007_199_254_740_993


def write(path, frame):
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.write_parquet(path) if path.suffix == ".parquet" else frame.write_csv(path)


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_hive_partitions_are_columns_and_a_writer_s_own_files_are_none(tmp_path, suffix):
    for day in ("2024-01-01", "2024-01-02"):
        write(tmp_path / "log" / f"date={day}" / f"part-0{suffix}", pl.DataFrame({"u": [1], "i": [2]}))
    write(tmp_path / "log" / "date=__HIVE_DEFAULT_PARTITION__" / f"part-0{suffix}", pl.DataFrame({"u": [3], "i": [4]}))
    (tmp_path / "log" / "_SUCCESS").write_text("")
    (tmp_path / "log" / ".part-0.crc").write_text("x")
    for path in (tmp_path / "log", tmp_path / "log" / "date=*"):
        frame = read_table(path, {"u": "integer", "date": None})
        assert frame.rows() == [(1, "2024-01-01"), (1, "2024-01-02"), (3, None)]


def test_a_partition_s_name_is_unquoted(tmp_path):
    write(tmp_path / "log" / "at=2024-01-01 10%3A00" / "a.csv", pl.DataFrame({"u": [1]}))
    assert read_table(tmp_path / "log", {"at": None}).item() == "2024-01-01 10:00"


def test_a_pattern_reads_its_files_in_order(tmp_path):
    for number in (2, 1):
        write(tmp_path / f"log-{number}.csv", pl.DataFrame({"u": [number]}))
    write(tmp_path / "other.csv", pl.DataFrame({"u": [9]}))
    assert read_table(tmp_path / "log-*.csv", {"u": "integer"})["u"].to_list() == [1, 2]


def test_parts_of_different_types_lose_no_digit(tmp_path):
    ids = {"a": pl.Series([BIG]), "b": pl.Series([12.0, None]), "c": pl.Series(["x", "7"])}
    for name, values in ids.items():
        write(tmp_path / "log" / f"{name}.parquet", pl.DataFrame({"id": values}))
    assert read_table(tmp_path / "log", {"id": None})["id"].to_list() == [str(BIG), "12", None, "x", "7"]
    (tmp_path / "log" / "c.parquet").unlink()
    assert read_table(tmp_path / "log", {"id": None})["id"].to_list() == [BIG, 12, None]


def test_parts_with_nan_and_integers_have_the_nan_missing(tmp_path):
    write(tmp_path / "log" / "a.parquet", pl.DataFrame({"k": [5, 6]}))
    write(tmp_path / "log" / "b.parquet", pl.DataFrame({"k": [7.0, float("nan")]}))
    assert read_table(tmp_path / "log", {"k": None})["k"].to_list() == [5, 6, 7, None]
    write(tmp_path / "log" / "c.parquet", pl.DataFrame({"k": [2**64 - 1]}, schema={"k": pl.UInt64}))
    assert read_table(tmp_path / "log", {"k": None})["k"].cast(pl.String)[-1] == str(2**64 - 1)


def test_parts_with_and_without_a_time_zone_are_in_utc(tmp_path):
    plain = pl.DataFrame({"t": ["2024-01-01T00:00:00"]}).with_columns(pl.col("t").str.to_datetime(time_unit="us"))
    write(tmp_path / "log" / "a.parquet", plain)
    write(tmp_path / "log" / "b.parquet", plain.with_columns(pl.col("t").dt.replace_time_zone("UTC")))
    write(tmp_path / "log" / "c.parquet", plain.with_columns(pl.col("t").dt.replace_time_zone("Europe/Berlin")))
    hours = read_table(tmp_path / "log", {"t": None})["t"].dt.hour().to_list()
    assert hours == [0, 0, 23]


def test_a_column_that_one_part_lacks_is_unknown_there_and_one_that_all_lack_is_an_error(tmp_path):
    write(tmp_path / "log" / "a.csv", pl.DataFrame({"u": [1]}))
    write(tmp_path / "log" / "b.csv", pl.DataFrame({"u": [2], "price": [3.5]}))
    assert read_table(tmp_path / "log", {"u": "integer", "price": "number"}).rows() == [(1, None), (2, 3.5)]
    with pytest.raises(TaijiError, match="column when"):
        read_table(tmp_path / "log", {"u": None, "when": None})


@pytest.mark.parametrize("log", ["_delta_log", ".hoodie"])
def test_a_table_format_is_named(tmp_path, log):
    write(tmp_path / "log" / "a.parquet", pl.DataFrame({"u": [1]}))
    (tmp_path / "log" / log).mkdir()
    with pytest.raises(TaijiError, match="deleted rows"):
        parts_of(tmp_path / "log")


def test_a_folder_or_pattern_without_files_is_an_error(tmp_path):
    for name in ("log", "log-*.csv"):
        with pytest.raises(TaijiError, match="A file is missing"):
            read_table(tmp_path / name, {"u": None})
