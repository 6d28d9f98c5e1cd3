"""The synthetic shop: a valid log, the truth it was drawn from, and a twin that differs in nothing but its titles."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from taiji.data.dataset import Dataset
from taiji.metrics.ranking_metrics import auc
from taiji.world.settings import ShopSettings
from taiji.world.shop import THEMES, Shop

SIZES = {"users": 400, "tail": 800, "promoted": 20}


@pytest.fixture(scope="module")
def shop():
    return Shop(ShopSettings(**SIZES), 0)


@pytest.fixture(scope="module")
def log(shop):
    return Dataset.from_tables(shop.tables())


def test_the_log_is_a_valid_data_set_with_new_users_to_the_end(shop, log):
    exposed = log.events.filter("exposed")
    assert set(exposed["item"].unique()) == set(range(20)) and exposed["user"].n_unique() == 400
    assert log.events.filter(~pl.col("exposed"))["item"].min() >= 20
    assert 0.04 < exposed["click"].mean() < 0.2
    first = exposed.group_by("user").agg(pl.col("time").min())
    assert (first["time"] > exposed["time"].quantile(0.7)).sum() > 60
    assert "simulated" in log.notes[0]


def test_clicks_and_conversions_follow_the_stated_truth(shop, log):
    exposed = log.events.filter("exposed")
    users, items, clicks = exposed["user"].to_numpy(), exposed["item"].to_numpy(), exposed["click"].to_numpy()
    expected = shop.click_probability(users, items)
    assert abs(clicks.mean() - expected.mean()) < 4 * np.sqrt((expected * (1 - expected)).sum()) / len(clicks)
    assert auc(clicks, expected) > 0.7
    bought = exposed.filter(pl.col("click") == 1)
    chance = shop.conversion_probability(bought["user"].to_numpy(), bought["item"].to_numpy())
    assert abs(bought["conversion"].mean() - chance.mean()) < 4 * np.sqrt((chance * (1 - chance)).sum()) / len(bought)


def test_shown_items_are_drawn_evenly_and_without_repeats(log):
    shown = log.events.filter("exposed")
    counts = np.bincount(shown["item"].to_numpy())
    assert counts.min() > 0.85 * counts.mean() and counts.max() < 1.15 * counts.mean()
    assert shown.select(pl.struct("user", "time", "item").n_unique()).item() == len(shown)


def _told(dataset):
    words = {word: theme for theme, words in enumerate(THEMES) for word in words}
    return np.array([words[title.split()[0]] for title in dataset.items["title"]])


def test_titles_tell_the_theme_and_categories_do_not(shop, log):
    assert (_told(log) == shop.themes).all()
    counts = pl.DataFrame({"theme": shop.themes, "kind": log.items["category_l3"]}).group_by("theme", "kind").len()
    assert counts["len"].max() < 4 * 820 / (8 * 12)


def test_the_null_twin_has_the_same_events_and_knows_nothing(shop, log):
    twin = Dataset.from_tables(Shop(ShopSettings(**SIZES, telling_text=False), 0).tables())
    assert twin.events.equals(log.events)
    assert twin.items.drop("title").equals(log.items.drop("title"))
    agreement = (_told(twin) == shop.themes).mean()
    assert agreement < 0.2
    assert np.bincount(_told(twin)).tolist() == np.bincount(_told(log)).tolist()


def test_a_seed_is_a_shop(shop):
    assert Shop(ShopSettings(**SIZES), 0).tables().events.equals(shop.tables().events)
    assert not Shop(ShopSettings(**SIZES), 1).tables().events.equals(shop.tables().events)
