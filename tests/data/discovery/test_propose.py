"""Differently shaped exports: what is told from them, and what is asked."""

from __future__ import annotations

import polars as pl
import pytest
from tests.data.discovery import exports

from taiji.core.errors import TaijiError
from taiji.data.discovery.propose import propose
from taiji.data.discovery.relations import unlinked
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
def test_the_mapping_of_an_export(look, name):
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
def test_an_open_role_becomes_a_question_and_an_answer_settles_it(look, name, keys, answers):
    proposal = look(name)
    assert {question.key for question in proposal.questions} == keys
    for question in proposal.questions:
        assert answers[question.key] in [choice.value for choice in question.choices]
    settled = look(name, answers)
    assert not settled.questions
    assert {key: settled.guesses[key].value for key in answers} == answers


def test_ids_in_place_of_titles_are_reported_prominently(look):
    proposal = look("events_only")
    assert proposal.guesses["items.title"].sure == "GUESS"
    assert any("NO TEXT" in doubt for doubt in proposal.doubts)


def test_dropped_rows_are_counted_by_reason(look):
    reasons = " ".join(look("ratings").guesses["unusable"].reasons)
    assert "no user_id" in reasons and "does not occur in movies.parquet" in reasons and "no title" in reasons


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
def test_a_column_without_values_is_left_out_and_reported(tmp_path, dtype):
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
        assert f"{file.name}: empty columns were left out ({', '.join(empty)})." in proposal.doubts
    with pytest.raises(TaijiError, match="column is empty"):
        propose(read_tables(tmp_path)[0], {"items.price": "vk_preis"})


def test_a_decision_that_is_no_yaml_is_one_message(look):
    with pytest.raises(TaijiError, match=r"the answer for events\.non_clicks"):
        look("german", {"events.non_clicks": "["})


def shop(folder, rows, items=None):
    """Write a log of 400 rows and a table of items."""
    names = rows(0).keys()
    lines = [";".join(names), *(";".join(f"{value}" for value in rows(k).values()) for k in range(400))]
    (folder / "log.csv").write_text("\n".join(lines))
    (folder / "items.csv").write_text(
        items or "item_id;title\n" + "".join(f"{k};Oat thing {k}\n" for k in range(40)), encoding="utf-8"
    )
    return propose(read_tables(folder)[0])


def row(k, **more):
    return {
        "user_id": f"u{k % 30}",
        "item_id": k * 7 % 40,
        "timestamp": 1690000000 + 600 * k,
        "click": k % 3 % 2,
        **more,
    }


def test_prices_keep_their_form_whatever_the_other_columns_write(tmp_path):
    made = shop(tmp_path, lambda k: row(k, price=f"€ 1.{100 + k},00", watch_seconds=f"{k % 60}.5"))
    assert not made.questions
    assert made.values["events"]["numbers"] == {"price": "1.234,50"}
    assert made.values["events"]["price"] == "price"
    assert made.values["events"]["labels"] == {"watch_seconds": {"kind": "duration"}}


def test_a_thousands_sign_that_may_be_a_fraction_is_asked_about(tmp_path):
    made = shop(tmp_path, lambda k: row(k, price=f"{1 + k % 9}.000"))
    (question,) = made.questions
    assert question.key == "events.numbers" and "price: 1.000, 2.000, 3.000" in question.what
    assert [choice.value for choice in question.choices] == ["{price: '1234.50'}", "{price: '1.234,50'}"]
    answered = propose(read_tables(tmp_path)[0], {"events.numbers": str(question.choices[1].value)})
    assert not answered.questions and answered.values["events"]["numbers"] == {"price": "1.234,50"}


@pytest.mark.parametrize("bad", ["-1", "inf", "abc"])
def test_a_broken_price_leaves_the_column_in_use_and_is_named(tmp_path, bad):
    made = shop(tmp_path, lambda k: row(k, price=bad if k == 7 else f"{1 + k % 9}.25"))
    assert made.values["events"]["price"] == "price" and made.values["unusable"] == "drop"
    assert "price" in made.guesses["unusable"].reasons[0]


@pytest.mark.parametrize("bad", ["NULL", "", "x"])
def test_a_broken_time_is_named_with_its_row(tmp_path, bad):
    made = shop(tmp_path, lambda k: {**row(k), "timestamp": bad if k == 7 else 1690000000 + 600 * k})
    assert made.values["events"]["timestamp"] == {"column": "timestamp", "unit": "s"}
    assert made.values["unusable"] == "drop"
    (reason,) = made.guesses["unusable"].reasons
    assert reason.startswith("1 of 400 rows have no time in timestamp (row 8:")


def test_rows_without_a_click_label_are_counted(tmp_path):
    made = shop(tmp_path, lambda k: {**row(k), "click": "" if k == 9 else "yes" if k % 3 else "no"})
    (reason,) = made.guesses["unusable"].reasons
    assert reason.startswith("1 of 400 rows have no label for click (row 10:")


def test_a_negative_quantity_is_reported(tmp_path):
    made = shop(tmp_path, lambda k: row(k, quantity=-1 if k % 50 == 0 else 2))
    assert any("quantity is negative in 8 of 400 rows" in doubt for doubt in made.doubts)


def test_a_reaction_with_ambiguous_values_is_reported(tmp_path):
    made = shop(tmp_path, lambda k: row(k, liked="AB"[k // 7 % 2]))
    assert any("liked is named like a label" in doubt for doubt in made.doubts)
    assert (
        "labels: {liked: {kind: binary, column: liked == A}}",
        "if this is the meaning of liked",
    ) in made.suggestions


def test_a_question_about_a_label_is_settled_by_a_rule(tmp_path):
    made = shop(tmp_path, lambda k: {**row(k), "click": 1 + k % 2})
    assert [question.key for question in made.questions] == ["events.click"] and "events.click" not in made.guesses
    settled = propose(read_tables(tmp_path)[0], {"events.click": "click == 2"})
    assert not settled.questions and settled.values["events"]["click"] == "click == 2"
    for answer in ("true", "True", " 1 "):
        assert "events.non_clicks" in propose(read_tables(tmp_path)[0], {"events.click": answer}).guesses
    every = propose(read_tables(tmp_path)[0], {"events.click": "1"})
    assert every.values["events"]["click"] == 1 and every.values["events"]["non_clicks"] == 4


def test_ids_with_a_point_or_spaces_are_ids_where_the_name_says_so(tmp_path):
    for form in ("{0}.{1}0", "Anna {0} {1}"):
        ids = [form.format(k // 10, k % 10) for k in range(40)]
        items = "item_id;title\n" + "".join(f"{ids[k]};Oat thing {k}\n" for k in range(40))
        made = shop(tmp_path, lambda k, ids=ids: {**row(k), "item_id": ids[k * 7 % 40]}, items)
        assert not made.questions
        assert made.values["items"]["title"] == "title" and made.values["events"]["item_id"] == "item_id"


def test_one_column_is_not_user_and_item(look):
    proposal = look("nameless", {"events.item_id": "a"})
    candidates = [choice.value for question in proposal.questions for choice in question.choices]
    assert "b" in candidates and "a" not in candidates


def test_files_with_the_columns_of_the_log_that_are_not_read_are_named(tmp_path):
    exports.events_only(tmp_path)
    (tmp_path / "clicks.csv").rename(tmp_path / "views.csv")
    lines = (tmp_path / "views.csv").read_text().splitlines()
    (tmp_path / "purchases.csv").write_text("\n".join(lines[:900]) + "\n")
    proposal = propose(read_tables(tmp_path)[0], {"events.file": "views.csv"})
    assert any("purchases.csv" in doubt and "one file" in doubt for doubt in proposal.doubts)


def test_missing_value_words_among_ids_are_counted(tmp_path):
    exports.german(tmp_path)
    log = tmp_path / "verlauf.csv"
    lines = log.read_text().splitlines()
    lines[5] = ";".join(["5", "NULL", *lines[5].split(";")[2:]])
    log.write_text("\n".join(lines) + "\n")
    proposal = propose(read_tables(tmp_path)[0])
    assert proposal.guesses["unusable"].value == "drop"
    assert any("1 of 3,000 rows of verlauf.csv have no KundenNr" in doubt for doubt in proposal.doubts)


def test_rows_of_bots_and_tests_are_counted_and_are_not_labels(tmp_path):
    made = shop(tmp_path, lambda k: row(k, is_bot=("true" if k % 7 == 0 else "false"), is_test_order=int(k % 11 == 0)))
    assert any("is_bot marks 58 of 400 rows, which are used like any others" in doubt for doubt in made.doubts)
    assert any("is_test_order marks 37 of 400 rows" in doubt for doubt in made.doubts)
    assert made.values["events"]["click"] == "click" and "conversion" not in made.values["events"]


def test_a_watch_time_whose_values_are_not_numbers_is_reported(tmp_path):
    made = shop(tmp_path, lambda k: row(k, watched=f"{k % 100}%"))
    assert any("watched is named like a label" in doubt for doubt in made.doubts)


def test_an_answered_click_rule_silences_notes_about_the_proposed_rule(tmp_path):
    def cells(k):
        return {
            **{key: value for key, value in row(k).items() if key != "click"},
            "status": ["view", "cancel", "buy"][k % 3],
        }

    assert any("'cancel' reverts an earlier action" in doubt for doubt in shop(tmp_path, cells).doubts)
    settled = propose(read_tables(tmp_path)[0], {"events.click": "status == buy"})
    assert not any("undoes" in doubt for doubt in settled.doubts)


def cells_without_a_click(k, **more):
    return {key: value for key, value in row(k, **more).items() if key != "click"}


def test_a_time_that_only_some_rows_have_is_no_time_of_the_event_and_may_be_a_label(tmp_path):
    made = shop(tmp_path, lambda k: row(k, sale_ts=1690009999 + k if k % 9 == 0 else ""))
    assert not made.questions and made.values["events"]["timestamp"]["column"] == "timestamp"
    assert any("--set 'events.conversion=sale_ts is not null'" in doubt for doubt in made.doubts)


def test_the_id_in_most_rows_is_the_user_and_the_other_id_is_not_shown(tmp_path):
    def cells(k):
        made = row(k, uid=k % 30 + 500 if k % 30 < 12 else "")
        return {"cookie": made.pop("user_id"), **made}

    made = shop(tmp_path, cells)
    assert made.values["events"]["user_id"] == "cookie" and "users" not in made.values
    assert "uid" in made.unused["log.csv"]


def test_the_user_is_the_id_that_the_table_of_users_describes(tmp_path):
    (tmp_path / "profiles.csv").write_text(
        "profile_id;lang\n" + "".join(f"u{k};{'de' if k % 2 else 'en'}\n" for k in range(30))
    )

    def cells(k):
        made = row(k)
        return {"account_id": f"a{k % 30 // 2}", "profile_id": made.pop("user_id"), **made}

    made = shop(tmp_path, cells)
    assert made.values["events"]["user_id"] == "profile_id" and made.values["users"]["profile"] == ["lang"]


def test_prices_in_hundredths_or_several_currencies_are_reported(tmp_path):
    items = "item_id;title;price_cents;currency\n" + "".join(
        f"{k};Oat thing {k};{900 + k};{'EUR' if k % 2 else 'USD'}\n" for k in range(40)
    )
    made = shop(tmp_path, row, items)
    assert made.values["items"]["price"] == "price_cents"
    assert any("price_cents is named like an amount in hundredths" in doubt and "900" in doubt for doubt in made.doubts)
    assert any("price_cents is in several currencies (EUR, USD)" in doubt for doubt in made.doubts)


def test_ratings_of_0_are_reported(tmp_path):
    made = shop(tmp_path, lambda k: cells_without_a_click(k, rating=0 if k % 3 else 1 + k % 10))
    assert any("rating is 0 in 266 of 400 rows" in doubt for doubt in made.doubts)


def test_titles_with_contact_data_are_counted(tmp_path):
    items = "item_id;title\n" + "".join(
        f"{k};Oat thing {k}{', joe@mail.example' if k < 3 else ''}\n" for k in range(40)
    )
    assert any("3 values of title contain an e-mail address" in doubt for doubt in shop(tmp_path, row, items).doubts)


def test_day_and_clock_are_answered_as_the_mapping_writes_them(tmp_path):
    def cells(k):
        made = row(k)
        made.pop("timestamp")
        return {**made, "d": f"2023-07-{1 + k // 20:02d}", "t": f"{k % 20:02d}:30"}

    shop(tmp_path, cells)
    made = propose(read_tables(tmp_path)[0], {"events.timestamp": "{column: d, clock: t}"})
    assert made.values["events"]["timestamp"] == {"column": "d", "clock": "t"}


def test_a_file_that_the_user_names_as_items_is_not_the_log(tmp_path):
    items = "item_id;title;valid_from\n" + "".join(
        f"{k // 2};Oat thing {k // 2};2023-0{1 + k % 2}-01\n" for k in range(80)
    )
    made = shop(tmp_path, row, items)
    table = next(table for table in read_tables(tmp_path)[0] if table.path.name == "items.csv")
    assert made.values["items"]["file"] == "log.csv" and "2.0 rows per id" in unlinked(made.roles.events, table)
    decided = propose(read_tables(tmp_path)[0], {"items.file": "items.csv", "items.item_id": "item_id"})
    assert decided.values["events"]["file"] == "log.csv" and decided.values["items"]["file"] == "items.csv"


@pytest.mark.parametrize("mark", ["", "-1"])
@pytest.mark.parametrize("separator", [" ", "|"], ids=["space", "bar"])
def test_rows_that_list_several_items_are_rejected(tmp_path, mark, separator):
    def cells(k):
        shown = separator.join(f"N{(k * 7 + j * j) % 40}{mark}" for j in range(4 + k % 2))
        return {"user_id": f"u{k % 30}", "timestamp": 1690000000 + 600 * k, "impressions": shown}

    with pytest.raises(TaijiError, match=r"contain several items each(.|\n)*column impressions(.|\n)*explode"):
        shop(tmp_path, cells, "item_id;title\n" + "".join(f"N{k};Oat thing {k}\n" for k in range(40)))


def test_a_bot_flag_is_reported_even_if_it_is_constant_for_each_user(tmp_path):
    made = shop(tmp_path, lambda k: row(k, is_bot=int(k % 10 == 0)))
    assert "users" not in made.values and any("is_bot marks 40 of 400 rows" in doubt for doubt in made.doubts)


@pytest.mark.parametrize(("column", "words"), [("produktbeschreibung", 6), ("extra", 30)], ids=["by name", "by length"])
def test_longer_texts_about_items_are_proposed_as_their_description(tmp_path, column, words):
    texts = [" ".join(f"wort{n * k % 17}" for k in range(words)) + f" {n}" for n in range(1, 9)]
    items = pl.DataFrame(
        {
            "sku": [f"S{n}" for n in range(8)],
            "name": [f"Tea {n}" for n in "abcdefgh"],
            column: texts,
            "code": list("xyxyxyxy"),
        }
    )
    log = pl.DataFrame(
        {
            "user": [f"u{n % 5}" for n in range(400)],
            "sku": [f"S{n % 8}" for n in range(400)],
            "time": [1_700_000_000 + 60 * n for n in range(400)],
            "click": [n % 3 % 2 for n in range(400)],
        }
    )
    items.write_csv(tmp_path / "items.csv")
    log.write_csv(tmp_path / "log.csv")
    proposal = propose(read_tables(tmp_path)[0])
    assert (proposal.values["items"]["title"], proposal.values["items"]["description"]) == ("name", column)
    assert "docs/data.md" in proposal.guesses["items.description"].reasons[-1]
    assert "description" not in propose(read_tables(tmp_path)[0], {"items.description": "null"}).values["items"]


@pytest.mark.parametrize(
    ("name", "separator", "expected"),
    [
        ("bereich7", "|", {"column": "bereich7", "separator": "|"}),
        ("bereich7", " > ", {"column": "bereich7", "separator": " > "}),
        ("bereich7", "/", "bereich7"),
        ("dept", "/", {"column": "dept", "separator": "/"}),
    ],
    ids=["bar", "arrow", "a slash may belong to a name", "a slash under a category's name"],
)
def test_joined_levels_are_separated_in_columns_of_any_name(tmp_path, name, separator, expected):
    kinds = [f"Food{separator}Dairy", f"Food{separator}Bread", f"Home{separator}Garden", f"Home{separator}Lamps"]
    items = {"sku": [f"s{n}" for n in range(40)], "label": [f"a thing called {n}" for n in range(40)]}
    pl.DataFrame(items | {name: [kinds[n % 4] for n in range(40)]}).write_csv(tmp_path / "items.csv")
    events = {"cust": [f"c{n % 9}" for n in range(400)], "sku": [f"s{n * 7 % 40}" for n in range(400)]}
    times = [f"2024-01-{1 + n % 28:02d} 10:00:{n % 60:02d}" for n in range(400)]
    pl.DataFrame(events | {"when": times}).write_csv(tmp_path / "events.csv")
    found = propose(read_tables(tmp_path)[0]).guesses
    assert found.get("items.categories", found.get("items.category_l1")).value == expected
