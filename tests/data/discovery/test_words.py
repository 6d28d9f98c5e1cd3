"""What names say, in several languages."""

from __future__ import annotations

import pytest

from taiji.data.discovery.words import action, meanings, parts


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
        ("曝光", "shown"),
        ("remove_from_cart", "back"),
        ("xyz", None),
    ],
)
def test_action(value, kind):
    assert action(value) == kind
