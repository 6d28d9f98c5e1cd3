from __future__ import annotations

import pytest

from taiji.data.sources.grocery_text import compose_title, tidy_name, tidy_size


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("FRZN ICE", "Frozen Ice"),
        ("EGGS - X-LARGE", "Eggs, X-Large"),
        ("BREAD:ITALIAN/FRENCH", "Bread: Italian/French"),
        ("POTATOES RUSSET (BULK&BAG)", "Potatoes Russet (Bulk & Bag)"),
        ("CANNED CAT FOOD (9 LIVES/FRISK", "Canned Cat Food"),
        ("MAKEUP AND TREATMENT", "Makeup and Treatment"),
        ("CHILDREN'S  BOOKS", "Children's Books"),
        (" - ", None),
        (None, None),
    ],
)
def test_tidy_name(text, wanted):
    assert tidy_name(text) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("12 OZ", "12 oz"), ("1 GA", "1 gal"), ("2 PK/7.2 OZ", "2 pack/7.2 oz"), ("CTN", None), (None, None)],
)
def test_tidy_size(text, wanted):
    assert tidy_size(text) == wanted


def test_compose_title():
    assert (
        compose_title("Private", "Mainstream White Bread", "Baked Bread/Buns/Rolls", "20 oz")
        == "Mainstream White Bread, 20 oz (store brand)"
    )
    assert (
        compose_title("National", "Premium", "Ice Cream/Milk/Sherbets", "48 oz")
        == "Premium (Ice Cream/Milk/Sherbets), 48 oz"
    )
    assert compose_title("National", None, "Beef", None) == "Beef"
    assert compose_title(None, None, None, None) == "Unnamed Product"
