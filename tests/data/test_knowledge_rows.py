"""Tables of item knowledge: checked when read, put into an item table, and times from the listing."""

from datetime import date, datetime

import polars as pl
import pytest
from tests.reasoning.conftest import build

from taiji.core.errors import InputError
from taiji.data.knowledge_rows import listed_at, own_knowledge, read_knowledge, with_knowledge


@pytest.fixture(scope="module")
def shop():
    return build()


def table(**columns):
    return pl.DataFrame({"item_id": ["3", "7"], "text": ["for tea", None], "available_at": [5, 9], **columns})


def test_a_table_of_the_needed_columns_is_enough(tmp_path):
    table(item_id=[3, 7]).write_parquet(tmp_path / "k.parquet")
    assert read_knowledge(tmp_path / "k.parquet").to_dicts() == table().to_dicts()


@pytest.mark.parametrize(
    ("made", "found"),
    [
        (table().drop("text"), "no text"),
        (table(item_id=["3", "3"]), "a repeated item"),
        (table(available_at=[None, 9]), "missing"),
    ],
    ids=["column", "twice", "time"],
)
def test_another_table_is_an_error(made, found, tmp_path):
    made.write_parquet(tmp_path / "k.parquet")
    with pytest.raises(InputError, match=found):
        read_knowledge(tmp_path / "k.parquet")
    with pytest.raises(InputError, match="cannot be read"):
        read_knowledge(tmp_path / "none.parquet")


NEW_YEAR = 1_704_067_200_000_000


@pytest.mark.parametrize(
    "times",
    [
        pl.Series([date(2024, 1, 1)]),
        pl.Series([datetime(2024, 1, 1)], dtype=pl.Datetime("ms")),
        pl.Series([datetime(2024, 1, 1)], dtype=pl.Datetime("ns")),
        pl.Series([datetime(2024, 1, 1)]).dt.replace_time_zone("UTC"),
        pl.Series(["2024-01-01"]),
        pl.Series([NEW_YEAR]),
    ],
    ids=["date", "ms", "ns", "zone", "text", "integer"],
)
def test_times_are_read_in_their_unit(times, shop, tmp_path):
    made = pl.DataFrame({"item_id": ["3"], "text": ["for tea"], "available_at": times})
    made.write_parquet(tmp_path / "k.parquet")
    assert read_knowledge(tmp_path / "k.parquet")["available_at"].to_list() == [NEW_YEAR]
    told = with_knowledge(shop, made)
    assert own_knowledge(told)["available_at"][3] == NEW_YEAR
    assert own_knowledge(told)["available_at"][0] == listed_at(shop)[0]


def test_seconds_are_not_taken_for_times(tmp_path):
    table(available_at=[1_704_067_200.0, 2.0]).write_parquet(tmp_path / "k.parquet")
    with pytest.raises(InputError, match="available_at"):
        read_knowledge(tmp_path / "k.parquet")


def test_listing_times_come_from_the_catalogue_and_never_from_events(shop):
    times = listed_at(shop)
    assert times.tolist() == [shop.events["time"].min()] * shop.n_items, "an own first event would tell who took it"
    told = with_knowledge(shop, table())
    said = pl.Series([None, 4, *[None] * (shop.n_items - 2)], dtype=pl.Int64)
    vars(told)["items"] = told.items.with_columns(available_from=said)
    assert listed_at(told)[1] == 4 and listed_at(told)[2] == times[2]


def test_an_item_table_with_texts(shop):
    told = with_knowledge(shop, table())
    assert own_knowledge(shop) is None
    found = own_knowledge(told)
    assert found["text"].drop_nulls().to_list() == ["for tea"] and found["text"][3] == "for tea"
    assert found["available_at"][3] == 5 and found["available_at"][0] == listed_at(shop)[0]
    assert told.levels == shop.levels and told.items.drop("knowledge", "knowledge_at").equals(shop.items)
    again = with_knowledge(told, table(text=["for coffee", "x"]))
    assert own_knowledge(again)["text"][3] == "for coffee"
