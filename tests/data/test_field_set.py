from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from tests.data.test_event_columns import rich_log

from taiji.core.errors import ConfigError, InputError
from taiji.data.dataset import Dataset
from taiji.data.field_set import Categories, FieldSet
from taiji.data.fields import CategoryField, IdField, NumberField, Rows
from taiji.data.list_fields import CodesField, SequenceField, VectorField
from taiji.data.statistics import statistics_of

LATER = 2**62


def fields():
    return [
        IdField("user"),
        IdField("item"),
        CategoryField("category_l1", "item"),
        CategoryField(("age", "spend"), "user", name="profile"),
        NumberField("spend", "user"),
        CategoryField("screen"),
        NumberField("load"),
        SequenceField(3),
        CodesField("ids"),
        VectorField("vector"),
    ]


@pytest.fixture(scope="module")
def rows(shop):
    frame = shop.events.filter("exposed").head(40).select("user", "item", "time")
    return frame.with_columns(
        screen=pl.Series(["tv" if i % 3 else "phone" for i in range(40)]),
        load=pl.Series(np.arange(40.0)),
        ids=pl.Series([[1, 2]] * 40, dtype=pl.List(pl.UInt16)),
        vector=pl.Series([None] * 40, dtype=pl.List(pl.Float32)),
    )


def test_the_layout_describes_the_fields_and_omits_those_without_values(shop, rows):
    made = FieldSet(fields()).fit(shop, rows, LATER)
    layout = made.layout
    assert layout.numbers == ("spend", "load") and layout.sequences == {"history": (3, True)}
    assert layout.codes == {"ids": (2, 4)} and layout.vectors == {}, "no row has a vector"
    assert layout.row == Categories((64 + 1 + 2,), (1,), (64,)) and layout.user.columns == (2,)
    assert made.item_codes(shop).shape == (shop.n_items + 1, 2) and not made.item_codes(shop)[-1].any()
    assert made.user_codes(shop).shape == (shop.n_users, 3)


def test_one_table_holds_all_fields_of_a_side():
    assert Categories((5, 7, 2), (1, 2, 1)).offsets == (0, 5, 5, 12) and Categories().offsets == ()


def test_sides_make_up_the_whole(shop, rows):
    made = FieldSet(fields()).fit(shop, rows, LATER)
    whole = made.arrays(Rows(shop, rows), {}, grouped=True)
    own, other = (made.arrays(Rows(shop, rows), {}, sides=s) for s in (("user", "context"), ("item", "pair")))
    assert np.array_equal(np.concatenate([own.numbers, other.numbers], axis=1), whole.numbers)
    assert np.array_equal(np.concatenate([own.categories, other.categories], axis=1), whole.categories)
    assert not other.sequences and np.array_equal(own.sequences["history"], whole.sequences["history"])
    same = (rows["user"].to_numpy()[:, None] == rows["user"].to_numpy()) & (
        rows["time"].to_numpy()[:, None] == rows["time"].to_numpy()
    )
    assert np.array_equal(whole.group[:, None] == whole.group, same)
    part = whole.take(np.array([3, 1]))
    assert np.array_equal(part.numbers, whole.numbers[[3, 1]]) and len(part) == 2 and part.codes["ids"].shape == (2, 2)


def test_rows_without_a_list_are_those_of_their_user_and_time():
    tables = rich_log()
    some = pl.when(pl.int_range(pl.len()) % 3 > 0).then("page")
    dataset = Dataset.from_tables(replace(tables, events=tables.events.with_columns(page=some)))
    frame = dataset.events.filter("exposed").head(60)
    known = frame["page"].is_not_null().to_numpy()
    group = (
        FieldSet([IdField("user"), IdField("item")])
        .fit(dataset, frame, LATER)
        .arrays(Rows(dataset, frame), {}, grouped=True)
        .group
    )
    assert known.any() and not known.all()
    keys = [
        page or (user, time)
        for page, user, time in zip(frame["page"], frame["user"].to_list(), frame["time"].to_list())
    ]
    assert np.array_equal(group[:, None] == group, [[one == other for other in keys] for one in keys])


def test_it_comes_back_from_json_and_arrays(shop, rows):
    made = FieldSet(fields()).fit(shop, rows, LATER)
    again = FieldSet.restore(made.config(), made.tensors())
    assert again.layout == made.layout and again.config() == made.config()
    for name, values in vars(made.arrays(Rows(shop, rows), {})).items():
        other = vars(again.arrays(Rows(shop, rows), {}))[name]
        if isinstance(values, dict):
            assert all(np.array_equal(values[key], other[key]) for key in values)
        else:
            assert np.array_equal(values, other)


def test_sets_that_cannot_be_are_explained(shop):
    with pytest.raises(ConfigError, match="same name"):
        FieldSet([*fields(), NumberField("load")])
    with pytest.raises(ConfigError, match="ids of users or items"):
        FieldSet([IdField("user"), NumberField("load")])

    class Flat(CategoryField):
        def codes(self, dataset, source):
            return np.zeros((len(source), 3), np.int64)

    with pytest.raises(InputError, match="wrong shape"):
        FieldSet([IdField("user"), IdField("item"), Flat("category_l1", "item")]).fit(
            shop, shop.events.head(5), LATER
        ).item_codes(shop)


class Parity(NumberField):
    """Whether an item's number is odd; counts its computations."""

    shared = True
    calls = 0

    def matrix(self, rows):
        type(self).calls += 1
        return (rows.item % 2).astype(np.float32)[:, None]


class Own(Parity):
    """A matrix of its own, about which nothing is said."""

    def matrix(self, rows):
        return super().matrix(rows)


def test_numbers_are_shared_only_by_the_same_field_for_the_same_rows_if_its_class_says_so(shop, rows):
    ids = (rows[name].to_numpy().astype(np.int64) for name in ("user", "item", "time"))
    at = statistics_of(shop).at(*ids)
    parity, own = Parity("parity", "item"), Own("own", "item")
    made = FieldSet([IdField("user"), IdField("item"), parity, own])
    for shared, computed in ((None, 4), ({}, 3)):
        Parity.calls = Own.calls = 0
        at.shared = shared
        found = [made.arrays(Rows(shop, rows, None, at), {}).numbers for _ in range(2)]
        assert np.array_equal(*found) and Parity.calls + Own.calls == computed
