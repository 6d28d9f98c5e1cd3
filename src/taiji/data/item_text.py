"""An item's text as embedders read it: its title and what its categories add."""

from __future__ import annotations

from collections.abc import Sequence

from taiji.data.dataset import Dataset

CHARACTERS = 200
"""Characters of a text that are read."""


def item_texts(dataset: Dataset) -> list[str]:
    """Return each item's title and its categories, coarse to fine, without what the title or another one says already; "" where there is nothing."""
    columns = [dataset.items[name].cast(str).fill_null("").to_list() for name in ("title", *dataset.levels)]
    return [item_text(row) for row in zip(*columns)]


def item_text(row: Sequence[str]) -> str:
    """Return the text of a title and categories, coarse to fine; :func:`item_texts` of what is no item of the catalogue, such as an intent."""
    parts: list[str] = []
    for part in row:
        if part.strip() and not any(part in earlier for earlier in parts):
            parts.append(part.strip())
    return ". ".join(parts)[:CHARACTERS]


def has_texts(dataset: Dataset) -> bool:
    """Return whether items have titles that tell them apart: not missing, not numbers, and more than a few different ones."""
    titles = dataset.items["title"].cast(str).drop_nulls()
    words = titles.filter(titles.str.contains(r"\p{L}{2}"))
    return len(words) >= len(dataset.items) / 2 and words.n_unique() > 1
