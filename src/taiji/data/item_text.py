"""Texts of items for embedders: the title, and the categories that add information to it."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from taiji.data.dataset import Dataset

DESCRIPTION = "description"
"""Column of the table of items with a longer text for each item."""
CHARACTERS = 200
"""Largest number of characters of a text, not counting the description."""


def item_texts(dataset: Dataset, description: int = 0) -> list[str]:
    """Return the text of each item: title and categories from coarse to fine.

    A part that occurs in an earlier part is left out. An item without a title and categories has the text "", or only its
    description.

    Args:
        dataset: the items.
        description: largest number of characters of the item's description to append; 0 appends no description.
    """
    columns = [dataset.items[name].cast(str).fill_null("").to_list() for name in ("title", *dataset.levels)]
    texts = [item_text(row) for row in zip(*columns)]
    told = [" ".join(text.split())[:description] for text in descriptions(dataset)] if description else []
    return [". ".join(filter(None, parts)) for parts in zip(texts, told, strict=True)] if told else texts


def descriptions(dataset: Dataset) -> list[str]:
    """Return the description of each item; "" for an item without one. Return an empty list if the items have no text
    column of descriptions."""
    if DESCRIPTION not in dataset.items.columns or dataset.items.schema[DESCRIPTION] != pl.String:
        return []
    return dataset.items[DESCRIPTION].fill_null("").to_list()


def item_text(row: Sequence[str]) -> str:
    """Join the title and the categories (coarse to fine) of an item or an intent, up to :data:`CHARACTERS` in total."""
    parts: list[str] = []
    for part in row:
        if part.strip() and not any(part in earlier for earlier in parts):
            parts.append(part.strip())
    return ". ".join(parts)[:CHARACTERS]


def has_texts(dataset: Dataset) -> bool:
    """Return True if titles distinguish items: at least half of the items have a title with two adjacent letters, and
    these titles are not all equal."""
    titles = dataset.items["title"].cast(str).drop_nulls()
    words = titles.filter(titles.str.contains(r"\p{L}{2}"))
    return len(words) >= len(dataset.items) / 2 and words.n_unique() > 1
