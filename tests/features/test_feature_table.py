import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tests.features.conftest import at, log

from taiji.core.errors import TaijiError
from taiji.features.feature_table import SCHEMA, build_table, export_table, feature_metrics, join_features
from taiji.features.settings import FeatureSettings
from taiji.models.codes.product import ProductQuantizer

QUANTIZER = ProductQuantizer.fit(
    np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32), FeatureSettings(slots=3, bits=3)
)


def some_rows(seed: int, number: int = 25) -> tuple[pl.DataFrame, np.ndarray]:
    random = np.random.default_rng(seed)
    rows = pl.DataFrame(
        {"user": random.integers(0, 6, number), "as_of": [at(int(m)) for m in random.integers(0, 500, number)]}
    )
    vectors = random.normal(size=(number, 6)).astype(np.float32)
    vectors[::5] = 0
    return rows, vectors


def test_rows_hold_what_the_definition_says(clicks):
    dataset = log(clicks)
    rows, vectors = some_rows(1)
    table = build_table(
        dataset, rows, vectors, QUANTIZER, FeatureSettings(neighbour_items=4, keep_vector=True), "llm-1"
    )
    assert dict(table.schema) == SCHEMA and len(table) == len(rows)
    for number, row in enumerate(table.iter_rows(named=True)):
        assert (row["user"], row["as_of"]) == rows.row(number)
        assert (row["ids"] is None) == (not vectors[number].any())
        assert row["neighbour"] != row["user"]
        if row["neighbour"] is None:
            assert row["neighbour_items"] is None
        else:
            items, _ = dataset.history.before(row["neighbour"], row["as_of"], 4)
            assert row["neighbour_items"] == items.tolist()
    assert set(table["model_version"]) == {"llm-1"} and set(table["quantizer_version"]) == {QUANTIZER.version}
    answered = vectors.any(axis=1)
    assert np.allclose(np.array(table["vector"].drop_nulls().to_list()), vectors[answered])
    assert np.array_equal(np.array(table["ids"].drop_nulls().to_list()), QUANTIZER.encode(vectors[answered]))


@hypothesis_settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), cut=st.integers(50, 450), planted=st.integers(1, 60))
def test_planted_future_changes_no_row(seed, cut, planted):
    random = np.random.default_rng(seed)
    clicks = sorted(
        zip(
            random.integers(0, 6, 80).tolist(),
            random.integers(0, 20, 80).tolist(),
            random.integers(0, cut, 80).tolist(),
        ),
        key=lambda c: c[2],
    )
    later = [
        (int(u), int(i), int(m))
        for u, i, m in zip(
            random.integers(0, 6, planted), random.integers(0, 20, planted), random.integers(cut, 600, planted)
        )
    ]
    rows = pl.DataFrame(
        {"user": random.integers(0, 6, 20), "as_of": [at(int(m)) for m in random.integers(0, cut + 1, 20)]}
    )
    vectors = random.normal(size=(20, 6)).astype(np.float32)
    more = pl.DataFrame(
        {"user": random.integers(0, 6, 10), "as_of": [at(int(m)) for m in random.integers(cut + 1, 600, 10)]}
    )
    alone = build_table(log(clicks), rows, vectors, QUANTIZER)
    together = build_table(
        log(clicks + later), pl.concat([rows, more]), np.concatenate([vectors, random.normal(size=(10, 6))]), QUANTIZER
    )
    assert alone.equals(together.head(20))


@hypothesis_settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), rows=st.integers(0, 15), shown=st.integers(1, 30))
def test_join_takes_the_newest_row_strictly_before(seed, rows, shown):
    random = np.random.default_rng(seed)
    table = pl.DataFrame(
        {"user": random.integers(0, 3, rows), "as_of": random.integers(0, 8, rows), "ids": [[n] for n in range(rows)]},
        schema={"user": pl.UInt32, "as_of": pl.Int64, "ids": pl.List(pl.UInt16)},
    )
    exposures = pl.DataFrame({"user": random.integers(0, 4, shown), "time": random.integers(0, 9, shown)}).with_columns(
        pl.col("user").cast(pl.UInt32)
    )
    joined = join_features(exposures, table, ("ids",))
    assert joined.select("user", "time").equals(exposures)
    for row in joined.iter_rows(named=True):
        before = [
            (r["as_of"], n, r["ids"])
            for n, r in enumerate(table.iter_rows(named=True))
            if r["user"] == row["user"] and r["as_of"] < row["time"]
        ]
        assert row["ids"] == (max(before)[2] if before else None)


@hypothesis_settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), rows=st.integers(0, 15), shown=st.integers(1, 30))
def test_a_row_is_joined_from_the_time_at_which_it_could_be_read(seed, rows, shown):
    random = np.random.default_rng(seed)
    as_of = random.integers(0, 8, rows)
    table = pl.DataFrame(
        {
            "user": random.integers(0, 3, rows),
            "as_of": as_of,
            "available_at": as_of + random.integers(0, 5, rows),
            "ids": [[n] for n in range(rows)],
        },
        schema={"user": pl.UInt32, "as_of": pl.Int64, "available_at": pl.Int64, "ids": pl.List(pl.UInt16)},
    )
    exposures = pl.DataFrame(
        {"user": random.integers(0, 4, shown), "time": random.integers(0, 12, shown)}
    ).with_columns(pl.col("user").cast(pl.UInt32))
    joined = join_features(exposures, table, ("ids",))
    assert joined.columns == ["user", "time", "feature_as_of", "ids"]
    for row in joined.iter_rows(named=True):
        readable = [
            (r["available_at"], r["as_of"], n)
            for n, r in enumerate(table.iter_rows(named=True))
            if r["user"] == row["user"] and r["available_at"] < row["time"]
        ]
        assert row["ids"] == ([max(readable)[2]] if readable else None)
        assert row["feature_as_of"] == (max(readable)[1] if readable else None)
    # Planted: rows of everybody that know more, but are written later than anything is shown.
    late = table.with_columns(
        as_of=pl.lit(0, pl.Int64), available_at=pl.lit(12, pl.Int64), ids=pl.lit([99]).cast(pl.List(pl.UInt16))
    )
    assert join_features(exposures, pl.concat([late, table, late]), ("ids",)).equals(joined)


def test_rows_of_a_batch_are_available_after_the_delay(clicks):
    rows, vectors = some_rows(5)
    for delay, later in ((0.0, 0), (90.5, 90_500_000)):
        table = build_table(log(clicks), rows, vectors, QUANTIZER, FeatureSettings(delay_s=delay))
        assert table["available_at"].to_list() == [time + later for time in rows["as_of"]]
    known = rows.with_columns(available_at=pl.col("as_of") + 7)
    assert build_table(log(clicks), known, vectors, QUANTIZER)["available_at"].equals(known["available_at"])
    with pytest.raises(TaijiError, match="before its `as_of`"):
        build_table(log(clicks), rows.with_columns(available_at=pl.col("as_of") - 1), vectors, QUANTIZER)


def test_metrics_tell_coverage_and_age():
    day = 86_400_000_000
    joined = pl.DataFrame(
        {
            "user": [0, 0, 1, 2],
            "time": [5 * day] * 4,
            "feature_as_of": [4 * day, 2 * day, None, 1 * day],
            "ids": [[1], None, None, [2]],
            "neighbour_items": [[1], [], None, [3]],
        }
    )
    assert feature_metrics(joined) == {
        "coverage": 0.75,
        "users": 2 / 3,
        "ids": 0.5,
        "neighbour_items": 0.5,
        "age_days_median": 3.0,
        "age_days_p90": pytest.approx(3.8),
    }
    none = feature_metrics(joined.head(0))
    assert none == dict.fromkeys(feature_metrics(joined), 0.0)


def test_export_speaks_in_the_users_ids(clicks, tmp_path):
    dataset = log(clicks)
    table = build_table(dataset, *some_rows(2), QUANTIZER, FeatureSettings(delay_s=3600))
    export_table(table, dataset, tmp_path / "features.parquet")
    written = pl.read_parquet(tmp_path / "features.parquet")
    assert written["user_id"].to_list() == [f"u{u}" for u in table["user"]]
    for inside, outside in zip(table["neighbour_items"].to_list(), written["neighbour_item_ids"].to_list()):
        assert outside == ([f"i{i}" for i in inside] if inside else None)
    assert written["as_of"].cast(pl.Int64).to_list() == table["as_of"].to_list()
    assert written["event_timestamp"].cast(pl.Int64).to_list() == [time + 3_600_000_000 for time in table["as_of"]]


def test_wrong_input_is_explained(clicks):
    dataset = log(clicks)
    rows, vectors = some_rows(3)
    with pytest.raises(TaijiError, match="number of embeddings"):
        build_table(dataset, rows, vectors[:-1], QUANTIZER)
    table = build_table(dataset, rows, vectors, QUANTIZER)
    exposures = pl.DataFrame({"user": [0], "time": [at(400)]})
    for first, second in ((("ids",), ("ids",)), (("ids",), ("vector",))):  # both joins have a column feature_as_of
        with pytest.raises(TaijiError, match="already have feature columns"):
            join_features(join_features(exposures, table, first), table, second)


def test_no_answers_give_an_empty_table(clicks):
    rows, vectors = some_rows(4)
    table = build_table(log(clicks), rows.head(0), vectors[:0], QUANTIZER)
    assert dict(table.schema) == SCHEMA and not len(table)
