import numpy as np
import polars as pl
from tests.ranking.conftest import shop_tables

from taiji.data.dataset import Dataset
from taiji.ranking.numeric import DAY, NAMES, NumericFeatures


def test_some_columns_by_hand(shop):
    events = shop.events
    rows = events.sample(40, seed=1)
    features = pl.DataFrame(NumericFeatures(shop).matrix(rows["user"].to_numpy(), rows["item"].to_numpy(), rows["time"].to_numpy()), schema=list(NAMES))
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
            "pair_shown": np.log1p(shown.filter((pl.col("item") == row["item"]) & (pl.col("user") == row["user"])).height),
            "pair_days_since": np.log1p((row["time"] - pair["time"].max()) / DAY) if len(pair) else np.log1p(3650),
            "item_conversion_rate": np.log(share / (1 - share)),
        }
        for name, value in expected.items():
            assert abs(got[name] - value) < 1e-5, name


def test_future_events_change_nothing():
    tables = shop_tables(rows=2000)
    cut = tables.events["timestamp"][1200]
    early = Dataset.from_tables(tables.__class__(tables.items, tables.users, tables.events.filter(pl.col("timestamp") < cut)))
    whole = Dataset.from_tables(tables)
    rows = early.events
    moments = rows["time"].to_numpy()
    alone, together = (NumericFeatures(d).matrix(rows["user"].to_numpy(), rows["item"].to_numpy(), moments) for d in (early, whole))
    assert np.array_equal(alone, together)
