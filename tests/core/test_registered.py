"""Entry points: those that importlib.metadata finds, read again only when packages come or go."""

from __future__ import annotations

import shutil
from importlib import metadata

from taiji.core import registered


def install(folder, name):
    place = folder / f"{name}-1.0.dist-info"
    place.mkdir()
    (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (place / "entry_points.txt").write_text(f"[taiji.fields]\n{name} = {name}:Field\n")
    return place


def test_they_are_read_once(monkeypatch):
    found = registered.entry_points(group="taiji.rankers")
    assert found == metadata.entry_points(group="taiji.rankers") and "dcn" in found.names
    monkeypatch.setattr(metadata, "entry_points", lambda: 1 / 0)
    assert registered.entry_points(group="taiji.rankers") == found
    assert not list(registered.entry_points(group="taiji.nothing"))


def test_a_package_that_comes_or_goes_is_seen(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    assert not list(registered.entry_points(group="taiji.fields"))
    place = install(tmp_path, "first")
    assert registered.entry_points(group="taiji.fields").names == {"first"}
    install(tmp_path, "second")
    assert registered.entry_points(group="taiji.fields").names == {"first", "second"}
    shutil.rmtree(place)
    assert registered.entry_points(group="taiji.fields").names == {"second"}


def test_another_path_is_another_set(tmp_path, monkeypatch):
    install(tmp_path, "elsewhere")
    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        assert registered.entry_points(group="taiji.fields").names == {"elsewhere"}
    assert not list(registered.entry_points(group="taiji.fields"))
