"""Features of another run: matched by text ids, read as of each request's time, refused where they are of no use."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from tests.models.ranking.conftest import shop_tables
from tests.tiny import random_rows, write_features_run

from taiji.core.component import Requests
from taiji.core.errors import ArtifactError, ConfigError
from taiji.data.dataset import Dataset
from taiji.features.other_run import StoredFeatures, features_run, features_state, import_table

TEST = 1_000


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return Dataset.from_tables(shop_tables(users=5, items=8, rows=200))


@pytest.fixture
def run(dataset: Dataset, tmp_path: Path) -> Path:
    rows = [
        {"user_id": "u1", "as_of": 10, "ids": [1, 2], "neighbour_items": ["i7", "only there", "i0"]},
        {"user_id": "only there", "as_of": 10, "ids": [3, 3], "neighbour_items": ["i1"]},
        {"user_id": "u1", "as_of": 20, "ids": None, "neighbour_items": ["only there"]},
        {"user_id": "u4", "as_of": 30, "ids": [0, 1], "neighbour_items": None},
    ]
    return write_features_run(tmp_path / "other", dataset, pl.DataFrame(rows), TEST)


def test_users_and_items_are_matched_by_their_ids_as_text(dataset: Dataset, run: Path) -> None:
    table = import_table(str(run), dataset, TEST)
    user = dict(zip(dataset.users["user_id"], dataset.users["user"]))
    item = dict(zip(dataset.items["item_id"], dataset.items["item"]))
    assert table["user"].to_list() == [user["u1"], user["u1"], user["u4"]]
    assert table["ids"].to_list() == [[1, 2], None, [0, 1]]
    assert table["neighbour_items"].to_list() == [[item["i7"], item["i0"]], None, None]
    assert table["available_at"].to_list() == [10, 20, 30] and table["quantizer_version"].unique().item() == "q-one"


def test_a_request_has_what_was_there_strictly_before_it(dataset: Dataset, run: Path) -> None:
    table = import_table(str(run), dataset, TEST)
    one, four = (int(dataset.users.filter(user_id=name)["user"][0]) for name in ("u1", "u4"))
    features = StoredFeatures(table, ("ids", "neighbour_items"), {})
    asked = Requests([one, one, one, four, four], [10, 11, 21, 30, 31])
    found = features.joined_to(asked)
    assert found.columns["ids"].tolist() == [None, [1, 2], None, None, [0, 1]]
    assert [None if row is None else len(row) for row in found.columns["neighbour_items"]] == [
        None,
        2,
        None,
        None,
        None,
    ]
    assert features.metrics_of(asked)["coverage"] == 0.6
    early = features.made_before(10)
    assert early.joined_to(asked).columns["ids"].tolist() == [None, [1, 2], [1, 2], None, None]


def test_rows_planted_in_the_future_change_nothing(dataset: Dataset, tmp_path: Path) -> None:
    past, future = random_rows(dataset, [10, 20]), random_rows(dataset, [40, 50], seed=1)
    asked = Requests([0, 1, 2, 3, 4], [15, 40, 40, 10, 25])
    found = []
    for name, rows in (("past", past), ("planted", pl.concat([future, past]))):
        table = import_table(str(write_features_run(tmp_path / name, dataset, rows, TEST)), dataset, TEST)
        joined = StoredFeatures(table, ("ids", "neighbour_items"), {}).joined_to(asked)
        found.append({column: values.tolist() for column, values in joined.columns.items()})
    assert found[0] == found[1] and sum(row is not None for row in found[0]["ids"]) == 4


def test_what_is_kept_is_read_again(dataset: Dataset, run: Path, tmp_path: Path) -> None:
    assert StoredFeatures.load(tmp_path) is None
    kept = StoredFeatures(import_table(str(run), dataset, TEST), ("ids",), {"run": "other"})
    kept.save(tmp_path)
    again = StoredFeatures.load(tmp_path)
    assert again is not None and again.columns == ("ids",) and again.about["run"] == "other"
    assert again.table.equals(kept.table)


def test_a_run_of_no_use_is_refused(dataset: Dataset, run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no features"):
        features_run(str(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match="test period"):
        import_table(str(run), dataset, TEST - 1)
    strangers = pl.DataFrame([{"user_id": "only there", "as_of": 1, "ids": [1], "neighbour_items": None}])
    other = write_features_run(tmp_path / "strangers", dataset, strangers, TEST)
    with pytest.raises(ConfigError, match="None of the features"):
        import_table(str(other), dataset, TEST)
    before = features_state(str(run))
    with (run / "features" / "taiji.parquet").open("ab") as file:
        file.write(b" ")
    assert features_state(str(run)) != before
    with pytest.raises(ArtifactError, match="changed since the run wrote it"):
        import_table(str(run), dataset, TEST)
