from __future__ import annotations

import subprocess
import sys

import polars as pl
import pytest
import yaml

from taiji.core.errors import ConfigError, TaijiError
from taiji.data import Dataset, DataSettings, load_dataset, load_source


@pytest.mark.parametrize("name", ["nowhere", "movielens", "amazon"])
def test_an_unknown_source_lists_the_known_ones(name):
    with pytest.raises(TaijiError, match=r"(?s)completejourney, movielens:FOLDER.*docs/data\.md"):
        load_source(name)


def test_a_folder_of_no_known_layout(tmp_path):
    with pytest.raises(TaijiError, match=r"(?s)layout is not recognised.*mapping\.yaml"):
        load_source(tmp_path)


@pytest.mark.parametrize(("option", "value"), [("users", 0), ("non_clicks", -1), ("domain", "a/b")])
def test_options_that_cannot_be_are_a_clear_error(option, value):
    with pytest.raises(ConfigError, match=rf"(?s)completejourney.*{option}.* should"):
        load_source("completejourney", **{option: value})


def test_mapping_may_lie_elsewhere(tmp_path):
    (tmp_path / "files").mkdir()
    pl.DataFrame({"i": [1], "n": ["x"]}).write_parquet(tmp_path / "files" / "items.parquet")
    pl.DataFrame({"u": [1], "i": [1], "t": [0]}).write_parquet(tmp_path / "files" / "log.parquet")
    plan = {
        "items": {"file": "items.parquet", "item_id": "i", "title": "n"},
        "events": {"file": "log.parquet", "user_id": "u", "item_id": "i", "timestamp": {"column": "t", "unit": "s"}},
    }
    (tmp_path / "m.yaml").write_text(yaml.safe_dump(plan))
    (tmp_path / "files" / "m.yml").write_text(yaml.safe_dump(plan))
    tables = load_source(tmp_path / "files", tmp_path / "m.yaml")
    assert tables.items["item_id"].to_list() == [1]
    assert load_source(tmp_path / "files" / "m.yml").events.equals(tables.events)
    dataset = load_dataset(DataSettings(source=str(tmp_path / "files"), mapping=tmp_path / "m.yaml", domain="books"))
    assert isinstance(dataset, Dataset) and dataset.domain == "books"


def public_samples(folder):
    """Layouts of large public sets, each with the mapping that reads it."""
    small = folder / "tiny-samples"
    return {
        "yidian": (
            "yidian_news_sampled.csv",
            {
                "user_id": "userId",
                "item_id": "itemId",
                "timestamp": {"column": "showTime", "unit": "ms"},
                "click": "click",
            },
            1000,
        ),
        "amazon_electronics": (
            "amazon_electronics_sample.csv",
            {"user_id": "user_id", "item_id": "item_id", "timestamp": {"column": "time", "unit": "s"}},
            100,
        ),
        "diginetica": (
            "diginetica_item_views_sample.csv",
            {
                "separator": ";",
                "user_id": "sessionId",
                "item_id": "itemId",
                "timestamp": {"column": "eventdate", "format": "%Y-%m-%d"},
            },
            499,
        ),
    }, small


@pytest.mark.parametrize("name", ["yidian", "amazon_electronics", "diginetica"])
def test_public_layouts_through_a_mapping(public_data, tmp_path, name):
    samples, small = public_samples(public_data)
    file, events, rows = samples[name]
    ids = pl.read_csv(small / file, infer_schema=False, separator=events.get("separator", ","))[
        events["item_id"]
    ].unique()
    pl.DataFrame({"id": ids, "name": "Item " + ids}).write_csv(tmp_path / "items.csv")
    (tmp_path / "mapping.yaml").write_text(
        yaml.safe_dump(
            {
                "items": {"file": "items.csv", "item_id": "id", "title": "name"},
                "events": {"file": str(small / file), **events},
            }
        )
    )
    assert len(load_source(tmp_path).events) == pytest.approx(rows, abs=1)


def test_the_room_imports_light():
    code = "import sys, taiji.data, taiji.data.settings; assert not {'polars', 'torch', 'pandas'} & set(sys.modules), 'heavy'"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_data_is_read_split_and_stored_without_torch(tmp_path):
    code = """
import sys
from pathlib import Path
from taiji.data import *
from taiji.data import tasks, statistics, past_counts, vocabulary, sampling
from taiji.data.discovery.propose import propose
from taiji.data.discovery.table_files import read_tables
folder = Path(sys.argv[1])
(folder / "items.csv").write_text("id,name\\n1,One\\n")
(folder / "log.csv").write_text("u,i,t\\n" + "".join(f"x,1,{k}\\n" for k in range(40)))
(folder / "mapping.yaml").write_text(
    "items: {file: items.csv, item_id: id, title: name}\\n"
    "events: {file: log.csv, user_id: u, item_id: i, timestamp: {column: t, unit: s}}\\n"
)
dataset = load_dataset(DataSettings(source=str(folder)))
dataset.save(folder / "dataset")
exposures(open_dataset(folder / "dataset"), time_split(dataset), "test")
assert not {"torch", "transformers"} & set(sys.modules), "heavy"
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
