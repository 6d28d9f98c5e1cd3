import numpy as np
import polars as pl
import pytest
from tests.models.ranking.conftest import with_features

from taiji.core.errors import TaijiError
from taiji.data.splits import later_slice
from taiji.models.ranking.settings import RankerSettings
from taiji.models.ranking.stream import train_streamed

SMALL = RankerSettings(dimension=8, history=10, neighbour=5, hidden=(16,), batch=256, epochs=2, min_steps=100)


def test_files_and_their_pieces_train_the_same_ranker(shop, exposures, tmp_path):
    train, valid = later_slice(with_features(exposures), 0.2)
    train.write_parquet(tmp_path / "all.parquet", row_group_size=700)
    train.head(2000).write_parquet(tmp_path / "a.parquet")
    train.slice(2000).write_parquet(tmp_path / "b.parquet")
    whole = train_streamed(shop, tmp_path / "all.parquet", SMALL, seed=1, valid=valid, chunk=1000)
    pieces = train_streamed(
        shop, [tmp_path / "a.parquet", tmp_path / "b.parquet"], SMALL, seed=1, valid=valid, chunk=1000
    )
    assert whole.version == pieces.version
    predicted = whole.predict(valid)
    liked = valid["click"] == 1
    assert predicted.filter(liked)["click"].mean() > predicted.filter(~liked)["click"].mean() + 0.03


@pytest.mark.parametrize("first", [100, 3000])
def test_all_rows_count_for_fields_that_need_many(shop, exposures, tmp_path, first):
    train, _ = later_slice(with_features(exposures), 0.2)
    train.head(first).write_parquet(tmp_path / "a.parquet")
    train.slice(first).write_parquet(tmp_path / "b.parquet")
    settings = SMALL.model_copy(
        update={"pair_fields": ({"field": "collaborative", "least_rows": len(train)},), "epochs": 1, "min_steps": 1}
    )
    made = train_streamed(shop, [tmp_path / "a.parquet", tmp_path / "b.parquet"], settings, seed=1, chunk=first)
    assert any("collaborative" in name for name in made.fieldset.layout.numbers)


def test_what_a_row_says_does_not_depend_on_where_a_chunk_ends(shop, exposures):
    from taiji.data.tasks import DEFAULT_TASKS, labels, last_known

    whole = labels(exposures, DEFAULT_TASKS)
    chunks = [exposures[start : start + 7] for start in range(0, len(exposures), 7)]
    until = last_known(chunks, DEFAULT_TASKS)
    for name, values in whole.items():
        found = np.concatenate([labels(chunk, DEFAULT_TASKS, until)[name] for chunk in chunks])
        np.testing.assert_array_equal(found, values)


def test_files_that_differ_or_hold_nothing_are_explained(shop, exposures, tmp_path):
    exposures.head(50).write_parquet(tmp_path / "a.parquet")
    exposures.head(50).drop("conversion").write_parquet(tmp_path / "b.parquet")
    with pytest.raises(TaijiError, match="different columns"):
        train_streamed(shop, [tmp_path / "a.parquet", tmp_path / "b.parquet"], SMALL)
    exposures.head(0).write_parquet(tmp_path / "c.parquet")
    with pytest.raises(TaijiError, match="no exposures"):
        train_streamed(shop, tmp_path / "c.parquet", SMALL)


def test_wrong_files_are_explained(shop, exposures, tmp_path):
    exposures.drop("click").write_parquet(tmp_path / "a.parquet")
    with pytest.raises(TaijiError, match="Columns are missing"):
        train_streamed(shop, tmp_path / "a.parquet", SMALL)
    (tmp_path / "b.parquet").write_bytes(b"no")
    with pytest.raises(TaijiError, match="Could not read exposures"):
        train_streamed(shop, tmp_path / "b.parquet", SMALL)
    with pytest.raises(TaijiError, match="no files"):
        train_streamed(shop, [], SMALL)
    assert isinstance(exposures, pl.DataFrame)
