"""Atomic writes, hashes and chunks."""

from __future__ import annotations

import errno
import os
import re

import polars as pl
import pytest

from taiji.core import artifacts
from taiji.core.artifacts import (
    TEMPORARY,
    atomic_file,
    atomic_folder,
    file_hash,
    make_folder,
    read_json,
    value_hash,
    write_json,
    write_parquet,
    write_text,
)
from taiji.core.errors import NoSpace, TaijiError


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
    with pytest.raises(NoSpace, match=r"(?s)No space left on device.*MiB free.*free some space") as caught:
        write_json(tmp_path / "a.json", 2)
    assert "--resume" not in str(caught.value), "whether the command has it is not known here"
    assert read_json(tmp_path / "a.json") == 1


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EACCES, ("Permission denied", "is not writable", "permissions")),
        (errno.EPERM, ("Operation not permitted", "is not writable", "permissions")),
        (errno.EROFS, ("mounted read-only", "another disk")),
        (errno.ENAMETOOLONG, ("shorter name",)),
    ],
)
def test_a_write_that_is_not_allowed_is_no_full_disk(tmp_path, monkeypatch, number, words):
    def refused(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    for write in ("replace", "mkdir"):
        monkeypatch.setattr(artifacts.os, write, refused)
    for write in (lambda: write_json(tmp_path / "a.json", 2), lambda: make_folder(tmp_path / "a" / "b")):
        with pytest.raises(TaijiError, match=re.escape(str(tmp_path / "a"))) as caught:
            write()
        said = str(caught.value)
        assert all(word in said for word in words) and not isinstance(caught.value, NoSpace)
        assert "MiB" not in said and "free some space" not in said


def test_files_and_folders_in_each_others_place_are_named(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    for make in (make_folder, lambda path: write_text(path / "a.txt", "x")):
        for path in (tmp_path / "file", tmp_path / "file" / "x"):
            with pytest.raises(TaijiError, match=rf"(?s)expected: a folder.*{tmp_path}/file is a file"):
                make(path)
    with pytest.raises(TaijiError, match=rf"{tmp_path}/folder is a folder"):
        write_text(tmp_path / "folder", "x")
    assert make_folder(tmp_path / "folder" / "inner") == make_folder(tmp_path / "folder/inner")


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="there is no /proc here")
@pytest.mark.parametrize("path", ["/proc/x", "/proc/x/y"])
def test_a_place_that_takes_no_files_is_explained(path):
    with pytest.raises(TaijiError, match=r"(?s)/proc/x.*/proc does not accept new files"):
        write_text(path, "x")
    with pytest.raises(TaijiError, match="/proc does not accept new files"):
        make_folder(path)


def test_a_missing_file_inside_a_write_is_not_laid_to_the_disk(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_file(tmp_path / "a"):
        (tmp_path / "input").read_text()


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


def test_files_in_a_temporary_folder_are_hashed_and_temporary_files_in_a_folder_are_not(tmp_path):
    with atomic_folder(tmp_path / "made") as temporary:
        write_text(temporary / "x", "1")
        inside = file_hash(temporary)
    (tmp_path / "made" / f"{TEMPORARY}y").write_text("half")
    (tmp_path / "empty").mkdir()
    assert inside == file_hash(tmp_path / "made") != file_hash(tmp_path / "empty")


def test_the_same_frame_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_parquet(tmp_path / name, pl.DataFrame({"x": [1, 2], "y": ["p", None]}))
    assert file_hash(tmp_path / "a") == file_hash(tmp_path / "b")
