"""Rows given as arrays are the same rows as those of a table."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from tests.data.test_field_set import LATER, fields, rows  # noqa: F401

from taiji.core.errors import InputError
from taiji.data.field_rows import RowArrays, Rows
from taiji.data.field_set import FieldSet
from taiji.data.list_fields import CodesField, SequenceField, VectorField


def lists(values):
    made = np.empty(len(values), dtype=object)
    made[:] = values
    return made


def arrays_of(shop, frame, given):
    """The rows of a frame, of which the columns ``given`` are Python lists."""
    further = {name: (lambda name=name: frame[name]) for name in frame.columns[3:]}
    ids = (frame[name].to_numpy().astype(np.int64) for name in ("user", "item", "time"))
    return RowArrays(shop, *ids, further, {name: lists(frame[name].to_list()) for name in given})


def test_fields_read_the_same_from_arrays(shop, rows):  # noqa: F811
    frame = rows.with_columns(vector=pl.Series([None if i % 3 else [0.1 * i, 2.0] for i in range(40)]))
    made = FieldSet(fields()).fit(shop, frame, LATER)
    given = arrays_of(shop, frame, ("ids", "vector"))
    assert list(given.columns) == frame.columns and len(given) == 40
    expected, found = made.arrays(Rows(shop, frame), {}), made.arrays(given, {})
    for name in ("user", "item", "numbers", "categories"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    for name in ("sequences", "ages", "codes", "vectors", "present"):
        for key, values in getattr(expected, name).items():
            np.testing.assert_array_equal(getattr(found, name)[key], values)
    assert given.frame.equals(
        frame.select(pl.col("user", "item", "time").cast(pl.Int64), pl.exclude("user", "item", "time"))
    )


def test_a_table_is_made_only_for_a_field_that_reads_it(shop, rows):  # noqa: F811
    given = arrays_of(shop, rows, ("ids", "vector"))
    codes, history, vector = CodesField("ids"), SequenceField(3), VectorField("vector")
    codes.slots, codes.values, vector.width = 2, 4, 5
    codes.codes(given), history.sequences(given), vector.vectors(given), SequenceField(4, "elsewhere").sequences(given)
    assert "frame" not in vars(given) and len(given.source("item")) == shop.n_items
    assert given.source("context") is given.frame and "frame" in vars(given)


def test_lists_are_padded_cut_and_checked_as_columns_are(shop, rows):  # noqa: F811
    entries = [None if i % 4 == 0 else list(range(i % 6)) for i in range(40)]
    frame = rows.select("user", "item", "time").with_columns(near=pl.Series(entries, dtype=pl.List(pl.Int64)))
    field = SequenceField(3, "near")
    expected, _ = field.sequences(Rows(shop, frame))
    np.testing.assert_array_equal(field.sequences(arrays_of(shop, frame, ("near",)))[0], expected)
    np.testing.assert_array_equal(field.sequences(arrays_of(shop, frame, ()))[0], expected)
    codes = CodesField("near")
    codes.slots, codes.values = 2, 8
    for given in (Rows(shop, frame), arrays_of(shop, frame, ("near",))):
        with pytest.raises(InputError, match="same length as in training"):
            codes.codes(given)
    assert arrays_of(shop, frame, ()).lists("near") is None
    mixed = RowArrays(shop, *(np.arange(2),) * 3, {}, {"near": lists([3, None])})
    assert mixed.lists("near") is None, "numbers are no lists"


def test_rows_with_another_table_are_rows_of_a_table(shop, rows):  # noqa: F811
    given = arrays_of(shop, rows, ())
    made = replace(given, frame=rows.head(3))
    assert type(made) is Rows and len(made) == 3 and made.dataset is shop
