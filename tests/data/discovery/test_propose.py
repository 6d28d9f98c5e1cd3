"""Differently shaped exports: what is told from them, and what is asked."""

from __future__ import annotations

import polars as pl
import pytest
from tests.data.discovery import exports

from taiji.core.errors import TaijiError
from taiji.data.discovery.propose import propose
from taiji.data.discovery.table_files import read_tables

RIGHT = {
    "german": {
        "events.user_id": "KundenNr",
        "events.item_id": "ArtikelNr",
        "events.timestamp": "Zeitpunkt",
        "events.timestamp.format": "%d.%m.%Y %H:%M",
        "events.click": "Aktion != angezeigt",
        "events.conversion": "Aktion == gekauft",
        "events.behaviour": "Aktion",
        "items.item_id": "Artikelnummer",
        "items.title": "Bezeichnung",
        "items.category_l1": "Warengruppe",
        "items.price": "Preis",
        "users.user_id": "Kundennummer",
        "users.profile": ("Geschlecht",),
        "domain": "shop",
    },
    "chinese": {
        "events.user_id": "用户编号",
        "events.item_id": "商品编号",
        "events.timestamp": "行为时间",
        "events.timestamp.unit": "ms",
        "events.click": "行为类型 != 曝光",
        "events.conversion": "行为类型 == 购买",
        "events.behaviour": "行为类型",
        "items.item_id": "商品编号",
        "items.title": "商品名称",
        "items.category_l1": "一级类目",
        "items.category_l2": "二级类目",
        "items.price": "单价",
        "domain": "shop",
    },
    "events_only": {
        "events.user_id": "visitor",
        "events.item_id": "sku",
        "events.timestamp": "ts",
        "events.timestamp.unit": "s",
        "events.click": 1,
        "events.non_clicks": 4,
        "items.item_id": "sku",
        "items.title": "sku",
        "items.one_per_id": True,
        "domain": "shop",
    },
    "joined": {
        "events.user_id": "customer_id",
        "events.item_id": "product_id",
        "events.timestamp": "created_at",
        "events.click": "clicked",
        "events.conversion": "purchased",
        "events.price": "amount",
        "items.item_id": "product_id",
        "items.title": "product_name",
        "items.category_l1": "category",
        "items.one_per_id": True,
        "users.user_id": "customer_id",
        "users.profile": ("city",),
        "users.one_per_id": True,
        "domain": "shop",
    },
    "ratings": {
        "events.user_id": "user_id",
        "events.item_id": "movie_id",
        "events.timestamp": "rated_at",
        "events.click": 1,
        "events.conversion": "stars >= 4",
        "events.non_clicks": 4,
        "items.item_id": "movie_id",
        "items.title": "title",
        "items.categories": {"column": "genres", "separator": "|"},
        "domain": "films",
        "unusable": "drop",
    },
}


@pytest.fixture
def look(tmp_path):
    def call(name, answers=None):
        getattr(exports, name)(tmp_path)
        return propose(read_tables(tmp_path)[0], answers, name)

    return call


@pytest.mark.parametrize("name", RIGHT)
def test_what_an_export_tells(look, name):
    proposal = look(name)
    assert not proposal.questions
    assert {key: guess.value for key, guess in proposal.guesses.items()} == RIGHT[name]
    assert all(guess.reasons and 0 < guess.confidence <= 1 for guess in proposal.guesses.values())


@pytest.mark.parametrize(
    ("name", "keys", "answers"),
    [
        ("nameless", {"events.user_id", "events.item_id"}, {"events.user_id": "a", "events.item_id": "b"}),
        ("both_ways", {"events.timestamp.format"}, {"events.timestamp.format": "%d/%m/%Y"}),
    ],
)
def test_what_is_open_is_asked_and_an_answer_settles_it(look, name, keys, answers):
    proposal = look(name)
    assert {question.key for question in proposal.questions} == keys
    for question in proposal.questions:
        assert answers[question.key] in [choice.value for choice in question.choices]
    settled = look(name, answers)
    assert not settled.questions
    assert {key: settled.guesses[key].value for key in answers} == answers


def test_bare_ids_in_place_of_titles_are_said_aloud(look):
    proposal = look("events_only")
    assert proposal.guesses["items.title"].sure == "GUESS"
    assert any("NO TEXT" in doubt for doubt in proposal.doubts)


def test_dropped_rows_are_counted_by_reason(look):
    reasons = " ".join(look("ratings").guesses["unusable"].reasons)
    assert "no user_id" in reasons and "movies.parquet does not have" in reasons and "no title" in reasons


def test_a_log_over_two_files_says_how_to_join_them(look):
    with pytest.raises(TaijiError, match=r"order_items\.csv.*\n.*join"):
        look("in_two_files")


def test_a_decision_wins_over_the_proposal(look):
    proposal = look(
        "german",
        {
            "events.conversion": "Menge >= 3",
            "domain": "books",
            "users.profile": "[]",
            "items.price": "null",
            "unusable": "drop",
            "events.matures_after_days": "14",
        },
    )
    assert proposal.values["events"]["conversion"] == "Menge >= 3"
    assert (
        proposal.values["domain"],
        proposal.values["unusable"],
        proposal.values["events"]["matures_after_days"],
    ) == ("books", "drop", 14)
    assert proposal.values["users"]["profile"] == [] and "price" not in proposal.values["items"]


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"events.user_id": "nobody"}, "nobody"),
        ({"events.file": "nothing.csv"}, "verlauf.csv"),
        ({"event.user": "KundenNr"}, "event.user"),
    ],
)
def test_decisions_that_name_nothing_are_refused(look, answers, message):
    with pytest.raises(TaijiError, match=message):
        look("german", answers)


def test_files_without_any_time_are_no_log(tmp_path):
    (tmp_path / "a.csv").write_text("user,item\n" + "".join(f"u{i % 3},i{i}\n" for i in range(20)))
    with pytest.raises(TaijiError, match="No file looks like a log"):
        propose(read_tables(tmp_path)[0])


@pytest.mark.parametrize("dtype", [pl.Float64, pl.Null, pl.Boolean, pl.Datetime("us"), pl.List(pl.String)])
def test_a_column_without_any_value_plays_no_part_and_that_is_said(tmp_path, dtype):
    exports.chinese(tmp_path)
    goods, log = tmp_path / "商品.parquet", tmp_path / "行为日志.parquet"
    before = propose(read_tables(tmp_path)[0]).values
    empty = {name: pl.lit(None, dtype) for name in ("vk_preis", "clicked", "created_at", "genres")}
    pl.read_parquet(goods).drop("单价").with_columns(**empty).write_parquet(goods)
    pl.read_parquet(log).with_columns(**empty).write_parquet(log)
    proposal = propose(read_tables(tmp_path)[0])
    del before["items"]["price"]
    assert proposal.values == before
    for file in (goods, log):
        assert f"{file.name}: columns hold no value and were left out ({', '.join(empty)})." in proposal.doubts
    with pytest.raises(TaijiError, match="holds no value"):
        propose(read_tables(tmp_path)[0], {"items.price": "vk_preis"})


def test_a_decision_that_is_no_yaml_is_one_message(look):
    with pytest.raises(TaijiError, match=r"--set events\.non_clicks"):
        look("german", {"events.non_clicks": "["})
