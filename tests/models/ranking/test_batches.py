import numpy as np
import polars as pl
import pytest

from taiji.core.errors import TaijiError
from taiji.models.ranking.batches import Batches
from taiji.models.ranking.encoder import Encoder
from taiji.models.ranking.settings import RankerSettings

SETTINGS = RankerSettings(history=7, neighbour=3)


def with_features(frame: pl.DataFrame, seed: int = 0) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    n = len(frame)
    return frame.with_columns(
        ids=pl.Series(
            [None if i % 3 == 0 else random.integers(0, 32, 4).tolist() for i in range(n)], dtype=pl.List(pl.UInt16)
        ),
        neighbour_items=pl.Series(
            [None if i % 4 == 0 else random.integers(0, 80, i % 6).tolist() for i in range(n)], dtype=pl.List(pl.UInt32)
        ),
        vector=pl.Series(
            [None if i % 3 == 0 else random.normal(size=8).tolist() for i in range(n)], dtype=pl.List(pl.Float32)
        ),
    )


def test_arrays_hold_the_frame(shop, exposures):
    frame = with_features(exposures.sample(50, seed=3))
    batches = Batches(shop, Encoder.fit(shop, frame, SETTINGS, until=2**62), SETTINGS)
    arrays = batches.arrays(frame)
    for row, values in enumerate(frame.iter_rows(named=True)):
        items, _ = shop.history.before(values["user"], values["time"], 7)
        assert arrays.history[row].tolist() == items.tolist() + [-1] * (7 - len(items))
        assert arrays.ids[row].tolist() == (values["ids"] or [-1] * 4)
        lookalike = (values["neighbour_items"] or [])[:3]
        assert arrays.neighbour[row].tolist() == lookalike + [-1] * (3 - len(lookalike))
        assert arrays.has_vector[row] == (values["vector"] is not None)
        assert np.allclose(arrays.vector[row], values["vector"] or 0)


def test_batch_points_at_distinct_items(shop, exposures):
    frame = with_features(exposures.sample(60, seed=4))
    batches = Batches(shop, Encoder.fit(shop, frame, SETTINGS, until=2**62), SETTINGS)
    arrays = batches.arrays(frame)
    index = np.array([5, 3, 40, 3])
    batch = batches.batch(arrays, index)
    codes = batches.item_codes
    assert np.array_equal(batch["items"][batch["item"]].numpy(), codes[arrays.item[index]])
    assert np.array_equal(batch["items"][batch["history"]].numpy(), codes[arrays.history[index]])
    assert np.array_equal(batch["items"][batch["neighbour"]].numpy(), codes[arrays.neighbour[index]])
    assert np.array_equal(batch["history"].numpy() == 0, arrays.history[index] < 0)
    assert not batch["items"][0].any()


def test_open_conversions_are_masked_on_both_sides():
    frame = pl.DataFrame(
        {
            "user": [0] * 6,
            "item": [0] * 6,
            "time": [1, 2, 3, 4, 5, 6],
            "click": [1, 0, 1, 0, 1, 0],
            "conversion": [1, None, 0, None, None, 0],
        }
    )
    from taiji.models.ranking.batches import _labels

    click, conversion, ctcvr = _labels(frame, frame["time"].to_numpy())
    assert click.tolist() == [1, 0, 1, 0, 1, 0]
    assert np.array_equal(conversion, [1, np.nan, 0, np.nan, np.nan, np.nan], equal_nan=True)
    assert np.array_equal(ctcvr, [1, 0, 0, np.nan, np.nan, np.nan], equal_nan=True)


def test_missing_features_are_absent_rows_and_wrong_ones_are_explained(shop, exposures):
    frame = with_features(exposures.head(30))
    batches = Batches(shop, Encoder.fit(shop, frame, SETTINGS, until=2**62), SETTINGS)
    bare = batches.arrays(exposures.head(30))
    assert (bare.ids == -1).all() and (bare.neighbour == -1).all() and not bare.has_vector.any()
    with pytest.raises(TaijiError, match="another length"):
        batches.arrays(exposures.head(1).with_columns(ids=pl.Series([[1, 2, 3]], dtype=pl.List(pl.UInt16))))
    with pytest.raises(TaijiError, match="fixed length"):
        Encoder.fit(shop, exposures.head(2).with_columns(ids=pl.Series([[1, 2, 3], [1]])), SETTINGS, until=2**62)
    with pytest.raises(TaijiError, match="Columns are missing"):
        batches.arrays(exposures.drop("time"))
