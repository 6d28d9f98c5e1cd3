"""Atomic writes, hashes and chunks."""

from __future__ import annotations

import errno
import os

import polars as pl
import pytest

from taiji import artifacts
from taiji.artifacts import (
    atomic_file,
    atomic_folder,
    file_hash,
    read_json,
    value_hash,
    write_json,
    write_parquet,
    write_text,
)
from taiji.errors import TaijiError


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), atomic_file(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_failed_folder_leaves_the_old_one(tmp_path):
    with atomic_folder(tmp_path / "m") as folder:
        (folder / "x").write_text("1")
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "m") as folder:
        (folder / "y").write_text("2")
        raise RuntimeError
    assert os.listdir(tmp_path) == ["m"]
    assert os.listdir(tmp_path / "m") == ["x"]


def test_a_full_disk_is_one_clear_error(tmp_path, monkeypatch):
    write_json(tmp_path / "a.json", 1)

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(artifacts.os, "replace", full)
    with pytest.raises(TaijiError, match="No space left on device"):
        write_json(tmp_path / "a.json", 2)
    assert read_json(tmp_path / "a.json") == 1


def test_broken_json_names_its_file(tmp_path):
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(TaijiError, match=r"a\.json"):
        read_json(tmp_path / "a.json")


def test_nan_is_refused(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", float("nan"))


def test_hashes_depend_on_content_and_names_only(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_text(tmp_path / name / "x", "1")
    assert file_hash(tmp_path / "a") == file_hash(tmp_path / "b")
    os.rename(tmp_path / "b" / "x", tmp_path / "b" / "y")
    assert file_hash(tmp_path / "a") != file_hash(tmp_path / "b")
    assert value_hash({"a": 1, "b": 2}) == value_hash({"b": 2, "a": 1})


def test_the_same_frame_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_parquet(tmp_path / name, pl.DataFrame({"x": [1, 2], "y": ["p", None]}))
    assert file_hash(tmp_path / "a") == file_hash(tmp_path / "b")
