import numpy as np
import polars as pl
from tests.models.ranking.conftest import shop_tables

from taiji.data.dataset import Dataset
from taiji.data.statistics import DAY, NAMES, statistics_of


def test_some_columns_by_hand(shop):
    events = shop.events
    rows = events.sample(40, seed=1)
    features = pl.DataFrame(
        statistics_of(shop).matrix(rows["user"].to_numpy(), rows["item"].to_numpy(), rows["time"].to_numpy()),
        schema=list(NAMES),
    )
    for number, row in enumerate(rows.iter_rows(named=True)):
        past = events.filter(pl.col("time") < row["time"])
        clicks, shown = past.filter(pl.col("click") == 1), past.filter("exposed")
        item = clicks.filter(pl.col("item") == row["item"])
        pair = item.filter(pl.col("user") == row["user"])
        judged = events.filter((pl.col("click") == 1) & (pl.col("matured_at") < row["time"]))
        prior = (judged["conversion"].sum() + 1) / (len(judged) + 2)
        mine = judged.filter(pl.col("item") == row["item"])
        got = features.row(number, named=True)
        share = (mine["conversion"].sum() + 10 * prior) / (len(mine) + 10)
        expected = {
            "item_clicks": np.log1p(len(item)),
            "item_clicks_28d": np.log1p(item.filter(pl.col("time") >= row["time"] - 28 * DAY).height),
            "pair_clicks": np.log1p(len(pair)),
            "pair_shown": np.log1p(
                shown.filter((pl.col("item") == row["item"]) & (pl.col("user") == row["user"])).height
            ),
            "pair_days_since": np.log1p((row["time"] - pair["time"].max()) / DAY) if len(pair) else np.log1p(3650),
            "item_conversion_rate": np.log(share / (1 - share)),
        }
        for name, value in expected.items():
            assert abs(got[name] - value) < 1e-5, name


def test_future_events_change_nothing():
    tables = shop_tables(rows=2000)
    cut = tables.events["timestamp"][1200]
    early = Dataset.from_tables(
        tables.__class__(tables.items, tables.users, tables.events.filter(pl.col("timestamp") < cut))
    )
    whole = Dataset.from_tables(tables)
    rows = early.events
    moments = rows["time"].to_numpy()
    alone, together = (
        statistics_of(d).matrix(rows["user"].to_numpy(), rows["item"].to_numpy(), moments) for d in (early, whole)
    )
    assert np.array_equal(alone, together)


def test_price_is_the_last_one_seen_before():
    """Sold at 2, then 8, then again 2: a row knows the latest price strictly before it, whatever it cost or will
    cost."""
    day = pl.datetime(2020, 1, 1, time_unit="us")
    days, prices = [1, 2, 3, 4, 4], [2.0, None, 8.0, 2.0, 5.0]
    tables = shop_tables(items=3, users=2, rows=5)
    events = pl.DataFrame(
        {
            "user_id": ["u0", "u1", "u0", "u1", "u0"],
            "item_id": ["i0", "i0", "i0", "i0", "i1"],
            "click": pl.Series([1, 0, 1, 1, 1], dtype=pl.Int8),
            "conversion": pl.Series([1, 0, 1, 1, 1], dtype=pl.Int8),
            "price": prices,
            "days": days,
        }
    ).select(pl.exclude("days"), (day + pl.duration(days=pl.col("days"))).alias("timestamp"))
    items = tables.items.with_columns(price=pl.Series([None, None, 3.0]), category_l3=pl.lit("one kind"))
    dataset = Dataset.from_tables(tables.__class__(items, tables.users, events))
    moments = dataset.events["time"].to_numpy()[:4]
    rows = np.append(moments, [moments[3] + 1, moments[3] + 1])
    found = statistics_of(dataset).matrix(np.zeros(6), np.array([0, 0, 0, 0, 0, 2]), rows)
    got = {name: found[:, NAMES.index(name)] for name in ("price", "price_missing", "price_in_l3", "price_change")}
    two, eight, three, five = np.log1p([2.0, 8.0, 3.0, 5.0])
    assert np.array_equal(got["price_missing"], [1, 0, 0, 0, 0, 0])
    # Nothing is known of the first row's item but its kind, of which one item is listed at 3.
    assert np.allclose(got["price"], [three, two, two, eight, two, three], atol=1e-5)
    assert np.allclose(got["price_change"], [0, 0, 0, (eight - two) / 2, two - (2 * two + eight) / 3, 0], atol=1e-5)
    kind = (three + two + eight + two + five) / 5
    assert np.allclose(got["price_in_l3"][[0, 1, 4, 5]], [0, (two - three) / 2, two - kind, three - kind], atol=1e-5)


def test_times_before_1970_are_times_like_any_others():
    tables = shop_tables(rows=2000)
    found = []
    for years in (0, 51, 60):  # the log begins in 2020, so the times are positive, partly negative, and all negative
        shifted = tables.events.with_columns(pl.col("timestamp", "matured_at") - pl.duration(days=365 * years))
        dataset = Dataset.from_tables(tables.__class__(tables.items, tables.users, shifted))
        rows = (dataset.events[name].to_numpy() for name in ("user", "item", "time"))
        found.append(statistics_of(dataset).matrix(*rows))
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])
