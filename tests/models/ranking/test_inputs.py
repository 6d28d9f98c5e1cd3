import numpy as np
import polars as pl
import pytest
from tests.models.ranking.conftest import with_features

from taiji.core.component import Requests, Slate
from taiji.core.errors import TaijiError
from taiji.data.field_set import FieldSet
from taiji.data.statistics import statistics_of
from taiji.data.tasks import DEFAULT_TASKS, labels
from taiji.models.ranking.default_fields import default_fields
from taiji.models.ranking.inputs import Inputs
from taiji.models.ranking.settings import RankerSettings

SETTINGS = RankerSettings(history=7, neighbour=3)
LATER = 2**62


def inputs(shop, frame):
    fields = FieldSet(default_fields(shop, frame.columns, SETTINGS)).fit(shop, frame, LATER)
    return Inputs(shop, fields, DEFAULT_TASKS)


def test_arrays_hold_the_frame(shop, exposures):
    frame = with_features(exposures.sample(50, seed=3))
    arrays = inputs(shop, frame).arrays(frame)
    for row, values in enumerate(frame.iter_rows(named=True)):
        items, _ = shop.history.before(values["user"], values["time"], 7)
        assert arrays.sequences["history"][row].tolist() == items.tolist() + [-1] * (7 - len(items))
        assert arrays.codes["ids"][row].tolist() == (values["ids"] or [-1] * 4)
        lookalike = (values["neighbour_items"] or [])[:3]
        assert arrays.sequences["neighbour_items"][row].tolist() == lookalike + [-1] * (3 - len(lookalike))
        assert arrays.present["vector"][row] == (values["vector"] is not None)
        assert np.allclose(arrays.vectors["vector"][row], values["vector"] or 0)


def test_batch_points_at_distinct_items(shop, exposures):
    frame = with_features(exposures.sample(60, seed=4))
    made = inputs(shop, frame)
    arrays = made.arrays(frame)
    index = np.array([5, 3, 40, 3])
    batch = made.batch(arrays, index)
    codes = made.item_codes
    assert np.array_equal(batch["items"][batch["item"]].numpy(), codes[arrays.item[index]])
    for name in ("history", "neighbour_items"):
        assert np.array_equal(batch["items"][batch[name]].numpy(), codes[arrays.sequences[name][index]])
    assert np.array_equal(batch["history"].numpy() == 0, arrays.sequences["history"][index] < 0)
    assert not batch["items"][0].any()


def test_candidates_of_requests_are_the_same_rows_one_by_one(shop, exposures):
    """The request side computed once, and each candidate's row as if it had been asked for alone."""
    frame = with_features(exposures.sample(12, seed=5))
    made = inputs(shop, frame)
    random = np.random.default_rng(0)
    columns = {
        name: np.array([*frame[name].to_list(), None], dtype=object)[:-1]
        for name in ("ids", "neighbour_items", "vector")
    }
    requests = Requests(frame["user"].to_numpy(), frame["time"].to_numpy(), columns)
    slate = Slate(random.integers(0, shop.n_items, (12, 5)))
    batch = made.candidates(made.state(requests), slate, slice(2, 9))
    rows = frame[2:9][np.repeat(np.arange(7), 5)].with_columns(item=pl.Series(slate.items[2:9].ravel()))
    alone = made.batch(made.arrays(rows), slice(None))
    for name in ("numbers", "ids", "vector", "vector_present", "user"):
        assert np.array_equal(batch[name].numpy(), alone[name].numpy()), name
    assert np.array_equal(batch["items"][batch["item"]].numpy(), alone["items"][alone["item"]].numpy())
    for name in ("history", "neighbour_items"):
        once = batch["items"][batch[name]].numpy()
        assert once.shape[0] == 7
        assert np.array_equal(np.repeat(once, 5, axis=0), alone["items"][alone[name]].numpy())
    assert np.array_equal(np.repeat(batch["history_age"].numpy(), 5, axis=0), alone["history_age"].numpy())


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
    found = labels(frame, DEFAULT_TASKS)
    assert found["click"].tolist() == [1, 0, 1, 0, 1, 0]
    assert np.array_equal(found["conversion"], [1, np.nan, 0, np.nan, np.nan, np.nan], equal_nan=True)
    assert np.array_equal(found["ctcvr"], [1, 0, 0, np.nan, np.nan, np.nan], equal_nan=True)


def test_missing_features_are_absent_rows_and_wrong_ones_are_explained(shop, exposures):
    frame = with_features(exposures.head(30))
    made = inputs(shop, frame)
    bare = made.arrays(exposures.head(30))
    assert (bare.codes["ids"] == -1).all() and (bare.sequences["neighbour_items"] == -1).all()
    assert not bare.present["vector"].any()
    with pytest.raises(TaijiError, match="same length as in training"):
        made.arrays(exposures.head(1).with_columns(ids=pl.Series([[1, 2, 3]], dtype=pl.List(pl.UInt16))))
    with pytest.raises(TaijiError, match="different lengths"):
        inputs(shop, exposures.head(2).with_columns(ids=pl.Series([[1, 2, 3], [1]])))
    with pytest.raises(TaijiError, match="Columns are missing"):
        made.arrays(exposures.drop("time"))


def test_inputs_bound_apart_may_batch_at_the_same_time(shop, exposures, monkeypatch):
    """A batch made in the midst of another one, as a second thread would, changes nothing in it."""
    frame = exposures.sample(40, seed=6)
    made = inputs(shop, frame)
    arrays = made.arrays(frame)
    statistics = statistics_of(shop)
    one, other = made.bound_to(shop, statistics), made.bound_to(shop, statistics)
    expected, distinct = one.batch(arrays, slice(0, 10)), Inputs._distinct

    def interrupted(self, wanted):
        found = distinct(self, wanted)
        if self is one:
            other.batch(arrays, slice(10, 40))
        return found

    monkeypatch.setattr(Inputs, "_distinct", interrupted)
    batch = one.batch(arrays, slice(0, 10))
    assert all(np.array_equal(batch[name].numpy(), expected[name].numpy()) for name in expected)
