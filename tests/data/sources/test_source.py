"""A source of another package, named by its import path or by an entry point."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint

import polars as pl
import pytest

from taiji.core.errors import ConfigError
from taiji.data import DataSettings, load_dataset
from taiji.data import sources as room
from taiji.data.sources import find_source, recognised

MODULE = '''
from pathlib import Path

import polars as pl

from taiji.data import EventColumns, Tables, Task
from taiji.data.sources import FolderSource


class Clips(FolderSource):
    """Clips with their watch time, in one Parquet file."""

    @classmethod
    def recognises(cls, path):
        return (path / "clips.parquet").is_file()

    def load(self, settings, seed):
        log = pl.read_parquet(self.folder / "clips.parquet")
        items = log.select("item_id", title="clip").unique("item_id", maintain_order=True)
        users = log.select("user_id").unique(maintain_order=True).head(settings.users or len(log))
        log = log.join(users, on="user_id", how="semi", maintain_order="left").with_columns(click=1)
        columns = EventColumns(labels=(Task(name="seconds", kind="duration"),))
        return Tables(items, users, log, "clips", "films", (f"seed {seed}",), columns)


not_a_source = 3
'''


@pytest.fixture
def clips(tmp_path, monkeypatch):
    (tmp_path / "somebodys_sources.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "clips"
    folder.mkdir()
    pl.DataFrame(
        {"user_id": [1, 2, 1], "item_id": [7, 7, 8], "clip": ["a", "a", "b"], "seconds": [1.5, None, 0.0]}
    ).with_columns(timestamp=pl.from_epoch(pl.Series([0, 60, 120]))).write_parquet(folder / "clips.parquet")
    yield folder
    sys.modules.pop("somebodys_sources", None)


@pytest.fixture
def installed(clips, monkeypatch):
    point = EntryPoint("clips", "somebodys_sources:Clips", room.GROUP)
    monkeypatch.setattr(room, "entry_points", lambda group: [point] if group == room.GROUP else [])
    return clips


def test_by_import_path_with_its_argument(clips):
    settings = DataSettings(source=f"somebodys_sources:Clips:{clips}", users=1)
    dataset = load_dataset(settings, seed=5)
    assert dataset.notes == ("seed 5",) and dataset.domain == "films" and dataset.n_users == 1
    assert [task.name for task in dataset.tasks] == ["click", "seconds"]
    assert dataset.events["seconds"].to_list() == [1.5, 0.0]


def test_the_domain_of_the_settings_wins(clips):
    settings = DataSettings(source=f"somebodys_sources:Clips:{clips}", domain="clips")
    assert load_dataset(settings).domain == "clips"


def test_by_the_name_of_an_entry_point_and_by_its_layout(installed):
    assert load_dataset(DataSettings(source=f"clips:{installed}")).n_items == 2
    assert load_dataset(DataSettings(source=str(installed))).n_items == 2
    assert type(recognised(installed)).__name__ == "Clips" and recognised(installed.parent) is None


def test_its_state_changes_with_its_files(clips):
    settings = DataSettings(source=f"somebodys_sources:Clips:{clips}")
    before = find_source(settings).state(settings)
    assert [name for name, _, _ in before] == ["clips.parquet"]
    pl.read_parquet(clips / "clips.parquet").head(2).write_parquet(clips / "clips.parquet")
    assert find_source(settings).state(settings) != before


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("somebodys_sources:Klips", ["data.source", "somebodys_sources:Klips", "AttributeError"]),
        ("nobodys_sources:Clips", ["data.source", "ModuleNotFoundError"]),
        ("somebodys_sources:not_a_source", ["not a data source", "taiji.data.sources.Source", "int"]),
        ("clips", ["Unknown data source", "clips:FOLDER", "write clips:FOLDER"]),
        ("sequences", ["Unknown data source", "write sequences:FILE"]),
    ],
)
def test_a_name_that_is_no_source_is_a_clear_error(installed, source, words):
    with pytest.raises(ConfigError) as caught:
        load_dataset(DataSettings(source=source))
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_the_state_of_files_of_ones_own_is_that_of_mapping_and_files(tmp_path):
    (tmp_path / "mapping.yaml").write_text(
        "items: {file: i.csv, item_id: a, title: b}\nevents: {file: e.csv, user_id: u, item_id: a, timestamp: t}\n"
    )
    for name in ("i.csv", "e.csv", "unread.csv"):
        (tmp_path / name).write_text("x")
    settings = DataSettings(source=str(tmp_path))
    state = find_source(settings).state(settings)
    assert [(name, size) for name, size, _ in state] == [("mapping.yaml", 103), ("e.csv", 1), ("i.csv", 1)]
    elsewhere = DataSettings(source=str(tmp_path), mapping=tmp_path / "mapping.yaml")
    assert find_source(elsewhere).state(elsewhere) == state
