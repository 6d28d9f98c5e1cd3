"""What names say, in several languages."""

from __future__ import annotations

import pytest

from taiji.data.discovery.words import LABELS, action, label_named, meanings, negated, parts


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("KundenNr", ["kunden", "nr"]),
        ("user_id", ["user", "id"]),
        ("userID", ["user", "id"]),
        ("商品编号", ["商品编号"]),
        ("ＩＤ", ["id"]),
    ],
)
def test_parts(name, words):
    assert parts(name) == words


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("customer_id", {"user", "id"}),
        ("Kundennummer", {"user", "id"}),
        ("Produktbezeichnung", {"item", "title"}),
        ("用户编号", {"user", "id"}),
        ("商品名称", {"item", "title"}),
        ("created_at", {"time"}),
        ("category_l2", {"category"}),
        ("status", set()),
        ("data", set()),
    ],
)
def test_meanings(name, expected):
    assert meanings(name) >= expected
    if not expected:
        assert not meanings(name)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("add_to_cart", "middle"),
        ("PageView", "view"),
        ("Purchase", "buy"),
        ("gekauft", "buy"),
        ("vista", "view"),
        ("曝光", "shown"),
        ("remove_from_cart", "back"),
        ("xyz", None),
        ("not clicked", "shown"),
        ("didn't buy", "shown"),
        ("not_interested", "against"),
        ("dislike", "against"),
        ("unlike", "back"),
    ],
)
def test_action(value, kind):
    assert action(value) == kind


@pytest.mark.parametrize(
    ("name", "meaning", "denied"),
    [
        ("clicked", "click", False),
        ("is_clicked", "click", False),
        ("user_clicked", "click", False),
        ("是否点击", "click", False),
        ("点击次数", "click", False),
        ("num_clicks", "click", False),
        ("no_of_clicks", None, False),
        ("not_clicked", "click", True),
        ("nonclick", "click", True),
        ("unclicked", "click", True),
        ("未点击", "click", True),
        ("click_time", None, False),
        ("click_id", None, False),
        ("order_status", None, False),
        ("purchase_price", None, False),
        ("hat_gekauft", "conversion", False),
        ("did_not_buy", "conversion", True),
        ("target_label", "label", False),
        ("behavior_type", "action", False),
        ("event_id", None, False),
    ],
)
def test_names_of_labels(name, meaning, denied):
    assert label_named(name) == meaning
    assert negated(name, LABELS[meaning or "click"]) == denied


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("klient", "user"),
        ("Название", "title"),
        ("cena_jedn", "price"),
        ("kategoria", "category"),
        ("profile_id", "user"),
    ],
)
def test_names_of_more_languages(name, meaning):
    assert meaning in meanings(name)
