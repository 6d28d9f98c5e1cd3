"""A world is a source like any other."""

from __future__ import annotations

import json

import pytest

from taiji.core.errors import ConfigError
from taiji.data.settings import DataSettings
from taiji.data.sources import find_source, load_source
from taiji.testing import check_source
from taiji.world.settings import ShopSettings
from taiji.world.shop import Shop
from taiji.world.world_source import WorldSource

SMALL = "world:short-video,users=40,items=80,days=2"


def test_a_world_passes_the_sources_checks():
    check_source(find_source(DataSettings(source=SMALL)))


def test_keys_twins_and_users_shape_the_world():
    tables = load_source(SMALL, users=25, seed=3)
    assert len(tables.users) == 25 and tables.name == "short-video" and "seed 3" in tables.notes[0]
    twin = load_source(f"{SMALL},-content.text", users=25, seed=3)
    assert twin.events.equals(tables.events) and not twin.items.equals(tables.items)
    assert load_source("world:push,users=20,days=1").name == "push"


def test_the_shop_is_the_shop_it_was():
    tables, shop = load_source("world:shop"), Shop(ShopSettings(), 0).tables()
    for name in ("items", "users", "events"):
        got, wanted = getattr(tables, name), getattr(shop, name)
        assert got.select(wanted.columns).cast(dict(wanted.schema)).equals(wanted), name
    twin = load_source("world:shop,-shelf.text").items["title"].to_list()
    assert twin == Shop(ShopSettings(telling_text=False), 0).tables().items["title"].to_list()


def test_the_state_is_that_of_every_setting():
    settings, states = DataSettings(source=SMALL), set()
    for text in (SMALL, f"{SMALL},-taste", f"{SMALL},slate=4", "world:short-video", "world:push"):
        states.add(json.dumps(WorldSource(text.partition(":")[2]).state(settings)))
    assert len(states) == 5


@pytest.mark.parametrize(
    "name, said",
    [("world:tv", "short-video"), ("world:push,users", "key=value"), ("world:push,user=3", "user"), ("world:push,-watch", "copy")],
    ids=["scenario", "form", "key", "twin"],
)  # fmt: skip
def test_what_is_wrong_with_a_name_is_said(name, said):
    with pytest.raises(ConfigError, match=said):
        load_source(name)
