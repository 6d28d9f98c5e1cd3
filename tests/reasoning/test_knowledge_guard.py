"""What the guard flags, and what it lets pass."""

import polars as pl
import pytest

from taiji.data.dataset import Dataset
from taiji.data.schema import Tables
from taiji.reasoning.knowledge_guard import STOCK_ITEMS, KnowledgeGuard, flagged_stock


@pytest.fixture(scope="module")
def guard():
    items = pl.DataFrame(
        {
            "item_id": ["a", "b", "c"],
            "title": ["Easy Peel Labels, 2 x 4 inches, 1,000 pieces", "Gel Pen", "Wall Clock"],
            "category_l1": ["Labels", "Pens", "Clocks"],
            "category_l2": ["Address Labels", "Gel Pens", "Wall Clocks"],
            "category_l3": ["Avery", "Pilot", "Howard Miller"],
            "price": [12.50, 3.0, None],
        }
    )
    users = pl.DataFrame({"user_id": ["u"]})
    events = pl.DataFrame({"user_id": ["u"], "item_id": ["a"], "timestamp": ["2025-01-01"], "click": [1]})
    log = events.with_columns(pl.col("timestamp").str.to_datetime())
    return KnowledgeGuard(Dataset.from_tables(Tables(items, users, log, "office", "shop")))


@pytest.mark.parametrize(
    ("item", "text", "reasons"),
    [
        (0, "It is used by people who send parcels, with a printer, instead of writing by hand.", []),
        (0, "A pack of 1000 Avery labels, 2 inches wide, for $12.5.", []),
        (0, "It comes in packs of 250.", ["number"]),
        (0, "It is used with a Pilot pen.", ["name"]),
        (2, "It is like a clock of Howard Miller, and not of Avery.", ["name"]),
        (0, "Pilot projects need them.", []),
        (0, "It is used with pens and clocks.", []),
        (0, "It is a pen for school.", ["category"]),
        (0, "It is a label for pens.", []),
        (1, "These are the best wall clocks.", ["category"]),
        (1, "I'm sorry, as an AI language model I cannot say.", ["refusal"]),
        (1, "It is a clock of Avery with 3 hands for 4 dollars.", ["number", "name", "category"]),
        (1, "It costs 3 dollars.", []),
    ],
)
def test_flags(guard, item, text, reasons):
    assert guard.flags(item, text) == reasons


def test_what_is_said_of_many_items_is_a_stock_phrase():
    said = ["Keeps drinks cold. For hikes."] * STOCK_ITEMS + ["Keeps drinks cold. For tea."] + ["For tea."] * 4 + [""]
    flags = ["", "number", *[""] * 9]
    table = pl.DataFrame({"said": said, "flagged": flags, "text": said})
    found = flagged_stock(table)
    # "For tea." is said five times in all, so that the sixth text has nothing of its own either.
    assert found["flagged"].to_list() == ["stock", "number, stock", *["stock"] * 8, ""]
    assert found["text"].null_count() == len(said) and flagged_stock(found).equals(found)
    fewer = flagged_stock(table[1:])
    assert fewer["flagged"].to_list() == ["number", *[""] * 3, *["stock"] * 5, ""]
    assert fewer["text"].to_list() == [None, *said[2:5], *[None] * 6]
