"""Texts of items: title and what the categories add; whether there is any text to speak of."""

import polars as pl
import pytest

from taiji.data.dataset import Dataset
from taiji.data.item_text import CHARACTERS, descriptions, has_texts, item_texts
from taiji.testing import checkerboard


def with_titles(titles, levels=("category_l1",)):
    board = checkerboard(4, len(titles), 1)
    items = board.items.with_columns(title=pl.Series(titles, dtype=pl.String), category_l1=pl.lit("Tea"))
    return Dataset(items, board.users, board.events, "x", "shop", given_levels=levels)


def test_categories_are_added_once():
    found = item_texts(with_titles(["Green Tea", "Cup", None, "  "]))
    assert found == ["Green Tea", "Cup. Tea", "Tea", "Tea"]
    assert item_texts(with_titles(["Cup", "Pot"], ())) == ["Cup", "Pot"]
    assert len(item_texts(with_titles(["x" * 999, "y"]))[0]) == CHARACTERS


@pytest.mark.parametrize(
    "titles, expected",
    [
        (["Green tea", "Cup", "Pot", None], True),
        (["1", "2", "3", "4"], False),
        (["same", "same", "same", "same"], False),
        ([None, None, None, "Cup of tea"], False),
    ],
    ids=["titles", "numbers", "one title", "missing"],
)
def test_text_to_speak_of(titles, expected):
    assert has_texts(with_titles(titles)) == expected


def test_descriptions_follow_when_they_are_asked_for():
    plain = with_titles(["Green Tea", "Cup"])
    told = Dataset(
        plain.items.with_columns(description=pl.Series(["Picked by\n hand, in spring.", None])),
        plain.users,
        plain.events,
        "x",
        "shop",
        given_levels=("category_l1",),
    )
    assert item_texts(told) == item_texts(plain) == item_texts(plain, 50) == ["Green Tea", "Cup. Tea"]
    assert item_texts(told, 14) == ["Green Tea. Picked by hand", "Cup. Tea"]
    assert descriptions(plain) == [] and descriptions(told)[1] == ""
