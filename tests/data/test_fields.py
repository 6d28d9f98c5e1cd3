import numpy as np
import polars as pl
import pytest

from taiji.core.errors import ConfigError, InputError
from taiji.data.fields import CategoryField, IdField, NumberField, Rows, Saved, StatisticField, make_field
from taiji.data.list_fields import CodesField, SequenceField, VectorField
from taiji.data.statistics import NAMES, statistics_of
from taiji.data.vocabulary import Vocabulary, stable_hash

LATER = 2**62


@pytest.fixture(scope="module")
def rows(shop):
    frame = shop.events.filter("exposed").head(200).select("user", "item", "time", "click")
    return frame.with_columns(
        screen=pl.Series(["tv" if i % 3 else "phone" for i in range(200)]),
        load=pl.Series([None if i % 5 == 0 else i / 100 for i in range(200)]),
        hour=pl.Series(np.arange(200) % 24),
    )


def fitted(field, shop, rows):
    field.fit(shop, rows, LATER)
    return field


def test_ids_keep_a_row_of_their_own_where_they_are_seen_often_enough(shop, rows):
    field = fitted(IdField("item", min_count=75, hashed=8), shop, rows)
    counts = np.bincount(shop.events["item"].to_numpy(), minlength=shop.n_items)
    own = field.codes(shop, shop.items)[:, 0] > 8
    assert np.array_equal(own, counts >= 75) and 0 < own.sum() < shop.n_items
    assert len(np.unique(field.codes(shop, shop.items)[own])) == own.sum()
    early = int(shop.events["time"].quantile(0.3))
    field.fit(shop, rows, early)
    assert (field.codes(shop, shop.items)[:, 0] > 8).sum() < own.sum(), "what comes later is not counted"


def test_categories_are_rows_of_a_vocabulary_and_missing_ones_row_0(shop, rows):
    field = fitted(CategoryField("category_l3", "item"), shop, rows)
    codes = field.codes(shop, shop.items)[:, 0]
    missing = shop.items["category_l3"].is_null().to_numpy()
    assert (codes[missing] == 0).all() and (codes[~missing] > field.vocabulary.hashed).all()
    groups = pl.DataFrame({"value": shop.items["category_l3"], "code": codes}).drop_nulls().unique()
    assert groups["value"].n_unique() == groups["code"].n_unique() == len(groups)
    unseen = shop.items.with_columns(category_l3=pl.lit("never seen"))
    assert (field.codes(shop, unseen) <= field.vocabulary.hashed).all() and (field.codes(shop, unseen) > 0).all()


def test_several_columns_share_a_vocabulary_and_are_distinguished(shop, rows):
    field = fitted(CategoryField(("age", "spend"), "user", name="profile"), shop, rows)
    codes = field.codes(shop, shop.users)
    assert codes.shape == (shop.n_users, 2) and field.edges["spend"] == sorted(field.edges["spend"])
    assert not set(codes[:, 0]) & set(codes[:, 1])
    bins = np.searchsorted(field.edges["spend"], shop.users["spend"].to_numpy())
    assert len(np.unique(codes[:, 1])) == len(np.unique(bins)) <= 10
    expected = Vocabulary(field.vocabulary.known, 64).rows([f"age={age}" for age in shop.users["age"]])
    assert np.array_equal(codes[:, 0], expected)
    gone = field.codes(shop, shop.users.drop("spend"))
    assert gone.shape == codes.shape and (gone[:, 1] == 0).all()


def test_a_context_category_reads_the_rows(shop, rows):
    field = fitted(CategoryField("screen"), shop, rows)
    codes = field.codes(shop, rows)[:, 0]
    assert np.array_equal(codes, field.vocabulary.rows(rows["screen"].to_list()))
    assert np.array_equal(np.unique(field.vocabulary.known), np.sort(stable_hash(["tv", "phone"])))
    assert (field.codes(shop, rows.drop("screen")) == 0).all()


def test_numbers_of_every_side_and_the_median_for_what_is_missing(shop, rows):
    load = fitted(NumberField("load"), shop, rows)
    found, known = load.numbers(Rows(shop, rows)), rows["load"].is_not_null().to_numpy()
    assert found.dtype == np.float32 and np.allclose(found[known], rows["load"].drop_nulls().to_numpy())
    assert np.allclose(found[~known], rows["load"].median())
    spend = fitted(NumberField("spend", "user"), shop, rows).numbers(Rows(shop, rows))
    assert np.allclose(spend, shop.users["spend"].to_numpy()[rows["user"].to_numpy()])
    price = fitted(NumberField("price", "item", name="listed"), shop, rows).numbers(Rows(shop, rows))
    listed = shop.items["price"].to_numpy()[rows["item"].to_numpy()]
    assert np.allclose(price[np.isfinite(listed)], listed[np.isfinite(listed)]) and np.isfinite(price).all()
    assert (load.numbers(Rows(shop, rows.drop("load"))) == np.float32(load.median)).all()
    with pytest.raises(InputError, match="does not hold numbers"):
        NumberField("screen").numbers(Rows(shop, rows))


def test_a_computed_number_of_the_wrong_shape_is_explained(shop, rows):
    class Two(NumberField):
        def compute(self, rows):
            return np.zeros((len(rows), 2))

    with pytest.raises(InputError, match="wrong shape"):
        Two("two").numbers(Rows(shop, rows))


@pytest.mark.parametrize("name", NAMES)
def test_a_statistic_is_a_number_field_like_any_other(shop, rows, name):
    found = StatisticField(name).numbers(Rows(shop, rows))
    matrix = statistics_of(shop).matrix(*(rows[column].to_numpy() for column in ("user", "item", "time")))
    assert np.array_equal(found, matrix[:, NAMES.index(name)])


def test_statistics_of_requests_spread_over_candidates_are_those_of_each_row(shop, rows):
    some = rows.head(20)
    items = np.random.default_rng(0).integers(0, shop.n_items, (6, 4))
    asked = statistics_of(shop).at(some["user"], np.zeros(20), some["time"])
    spread = asked.spread(items, slice(5, 11))
    alone = statistics_of(shop).at(
        np.repeat(some["user"].to_numpy()[5:11], 4), items.ravel(), np.repeat(some["time"].to_numpy()[5:11], 4)
    )
    for name in NAMES:
        assert np.array_equal(spread[name], alone[name]), name


def test_sequences_are_the_past_newest_first(shop, rows):
    items, ages = SequenceField(4).sequences(Rows(shop, rows))
    for row, (user, time) in enumerate(rows.select("user", "time").iter_rows()):
        past, times = shop.history.before(user, time, 4)
        assert items[row].tolist() == past.tolist() + [-1] * (4 - len(past))
        np.testing.assert_allclose(ages[row, : len(past)], np.log1p((time - times) / 3.6e9), rtol=1e-3)
    lists = rows.head(3).with_columns(near=pl.Series([[1, 2, 3], None, []], dtype=pl.List(pl.UInt32)))
    found, none = SequenceField(2, "near").sequences(Rows(shop, lists))
    assert found.tolist() == [[1, 2], [-1, -1], [-1, -1]] and none is None


def test_codes_and_vectors_have_one_length(shop, rows):
    frame = rows.head(3).with_columns(
        ids=pl.Series([[1, 5], None, [9, 2]], dtype=pl.List(pl.UInt16)), text=pl.Series([[0.5, 1.0, 2.0], None, None])
    )
    codes, vector = fitted(CodesField("ids"), shop, frame), fitted(VectorField("text"), shop, frame)
    assert (codes.slots, codes.values, vector.width) == (2, 16, 3)
    assert codes.codes(Rows(shop, frame)).tolist() == [[1, 5], [-1, -1], [9, 2]]
    unseen = frame.with_columns(ids=pl.Series([[1, 99], None, [9, 2]], dtype=pl.List(pl.UInt16)))
    assert codes.codes(Rows(shop, unseen))[0].tolist() == [1, -1]
    values, present = vector.vectors(Rows(shop, frame))
    assert values.tolist() == [[0.5, 1, 2], [0, 0, 0], [0, 0, 0]] and present.tolist() == [1, 0, 0]


def test_a_value_is_the_same_category_however_its_column_is_stored(shop, rows):
    whole = rows.with_columns(size=pl.Series([i % 3 for i in range(200)]))
    field = fitted(CategoryField("size"), shop, whole)
    codes = field.codes(shop, whole)
    for kind in (pl.Float64, pl.Int8, pl.String):
        assert np.array_equal(field.codes(shop, whole.with_columns(pl.col("size").cast(kind))), codes), kind
    negative = whole.with_columns(
        size=pl.when(pl.col("size") == 0).then(-0.0).otherwise(pl.col("size").cast(pl.Float64))
    )
    assert np.array_equal(field.codes(shop, negative), codes)
    flag = rows.with_columns(flag=pl.Series([i % 2 == 0 for i in range(200)]))
    known = fitted(CategoryField("flag"), shop, flag)
    assert np.array_equal(known.codes(shop, flag.with_columns(pl.col("flag").cast(pl.Int64))), known.codes(shop, flag))


def test_a_category_without_any_value_is_row_0(shop, rows):
    nothing = rows.with_columns(size=pl.lit(float("nan")))
    assert not fitted(CategoryField("size"), shop, nothing).codes(shop, nothing).any()


@pytest.mark.parametrize(
    "field", [CategoryField("scren"), NumberField("laod"), NumberField("load", "user")], ids=["name", "number", "side"]
)
def test_a_column_that_is_missing_in_training_is_explained(field, shop, rows):
    with pytest.raises(ConfigError, match="column of a field is missing"):
        field.fit(shop, rows, LATER)


def test_an_unknown_side_is_explained():
    with pytest.raises(ConfigError, match="side of a field is unknown"):
        NumberField("load", "items")


FIELDS = [
    IdField("user", 3, 100, 16),
    CategoryField("screen"),
    CategoryField(("age", "spend"), "user", name="profile"),
    NumberField("load"),
    StatisticField("pair_clicks"),
    SequenceField(5),
]


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_a_field_comes_back_from_json_and_arrays(field, shop, rows):
    fitted(field, shop, rows)
    made = Saved(**vars(Saved.of(field))).make()
    made.restore(field.config(), field.tensors())
    assert type(made) is type(field) and (made.name, made.side, made.config()) == (
        field.name,
        field.side,
        field.config(),
    )
    if isinstance(field, IdField | CategoryField):
        source = Rows(shop, rows).source(field.side)
        assert np.array_equal(made.codes(shop, source), field.codes(shop, source))
    if isinstance(field, NumberField):
        assert np.array_equal(made.numbers(Rows(shop, rows)), field.numbers(Rows(shop, rows)))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("no_such", "No component"),
        ("pathlib:Path", "is not a field"),
        ({"field": "number"}, "arguments of a field are invalid"),
        ({"field": "category", "column": "a", "colour": "red"}, "arguments of a field are invalid"),
    ],
    ids=["unknown", "no field", "too few", "too many"],
)
def test_settings_that_make_no_field_are_explained(given, message):
    with pytest.raises(ConfigError, match=message):
        make_field(given, "ranking.fields[0]")


def test_no_number_that_reaches_a_ranker_is_infinite(shop, rows):
    wild = rows.head(100).with_columns(load=pl.Series([np.inf, -np.inf, np.nan, 1e300, *np.linspace(0, 1, 96)]))
    found = fitted(NumberField("load"), shop, wild).numbers(Rows(shop, wild))
    assert np.isfinite(found).all()
    bins = fitted(CategoryField("load"), shop, wild)
    assert np.isfinite(bins.edges["load"]).all() and bins.codes(shop, wild).min() >= 0
