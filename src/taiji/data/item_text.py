"""Texts of items for embedders: the title, and the categories that add information to it."""

from __future__ import annotations

from collections.abc import Sequence

from taiji.data.dataset import Dataset

CHARACTERS = 200
"""Largest number of characters of a text."""


def item_texts(dataset: Dataset) -> list[str]:
    """Return the text of each item: title and categories from coarse to fine, without parts that occur in an earlier part; "" if there are none."""
    columns = [dataset.items[name].cast(str).fill_null("").to_list() for name in ("title", *dataset.levels)]
    return [item_text(row) for row in zip(*columns)]


def item_text(row: Sequence[str]) -> str:
    """Return the text of a title and categories from coarse to fine, for an item or for something similar, such as an intent."""
    parts: list[str] = []
    for part in row:
        if part.strip() and not any(part in earlier for earlier in parts):
            parts.append(part.strip())
    return ". ".join(parts)[:CHARACTERS]


def has_texts(dataset: Dataset) -> bool:
    """Return True if titles distinguish items: at least half of the items have a title with letters, and the titles are not all equal."""
    titles = dataset.items["title"].cast(str).drop_nulls()
    words = titles.filter(titles.str.contains(r"\p{L}{2}"))
    return len(words) >= len(dataset.items) / 2 and words.n_unique() > 1
