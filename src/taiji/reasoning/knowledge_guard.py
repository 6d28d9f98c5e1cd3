"""Guard against invented facts: a text about an item must not contradict the catalogue.

The guard flags numbers that occur in no field of the item, catalogue names (brands, deepest categories) of other items,
claims that the item belongs to another category, refusals, and texts that consist of stock phrases (sentences that
small models repeat for many items). A false alarm costs only the text of one item. Claims that no field can confirm (is
the item really used in kitchens?) are not checked.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl

from taiji.data.dataset import Dataset

REASONS = ("number", "name", "category", "refusal")
"""Reasons to flag a single text."""
BRANDS = ("brand", "manufacturer", "maker", "author", "artist", "director", "publisher", "label")
"""Columns of the item table whose values are names."""
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_WORD = re.compile(r"[^\W_]+")
_REFUSAL = re.compile(
    r"\b(?:as an ai|language model|i(?: am|'m) sorry|i (?:cannot|can't|do not know|don't know|am unable))\b",
    re.IGNORECASE,
)
_CLAIM = re.compile(
    r"\b(?:(?:is|are|it's)(?=\s|(?:an?|the)\s)\s*+|category[:\s]++(?<=\s)(?:is\s++)?+)"
    r"(?:(?:an?|the|one of the|an? (?:kind|type) of|(?:kind|type)s of)\s++)?+([^.,;:!?]{1,80})",
    re.IGNORECASE,
)
_END_OF_CLAIM = re.compile(r"\b(?:for|that|which|who|used|with|to|in|by|on|of|and|or|instead|when)\b", re.IGNORECASE)
STOCK = "stock"
"""Reason to flag a text that consists only of stock phrases, which are found by comparing all texts."""
STOCK_ITEMS, STOCK_SHARE = 5, 0.01
"""A sentence is a stock phrase if it occurs in the texts of at least this number of items, and in at least this share
of all texts."""
MOST_WORDS = 6
"""Largest number of words in a name."""


class KnowledgeGuard:
    """Check of texts about items against a catalogue.

    Args:
        dataset: the catalogue that the texts are about.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._columns = [name for name in dataset.items.columns if name not in ("item", "item_id")]
        named = [*dataset.levels[-1:], *(name for name in BRANDS if name in dataset.items.columns)]
        self._named = list(dict.fromkeys(named))
        self._levels = list(dataset.levels)
        self._items = dataset.items
        self._names = {
            value
            for column in self._named
            for value in dataset.items[column].cast(pl.String).drop_nulls().unique()
            if _is_name(value)
        }
        self._categories = {
            folded
            for column in self._levels
            for value in dataset.items[column].cast(pl.String).drop_nulls().unique()
            if (folded := _folded(value))
        }

    def flags(self, item: int, text: str) -> list[str]:
        """Return the reasons, out of :data:`REASONS`, not to use ``text`` about ``item`` (dense id)."""
        row = self._items.row(item, named=True)
        own = [str(row[name]) for name in self._columns if row[name] is not None]
        found = {
            "number": bool(numbers_in(text) - {number for value in own for number in numbers_in(value)}),
            "name": self._names_another(text, own),
            "category": self._claims_another(text, own),
            "refusal": bool(_REFUSAL.search(text)),
        }
        return [reason for reason in REASONS if found[reason]]

    def _names_another(self, text: str, own: Sequence[str]) -> bool:
        """Return True if the text contains a catalogue name that occurs in no field of the item.

        A name must be spelt as in the catalogue. A single word at the start of a sentence does not count as a name.
        """
        fields = f" {' '.join(_WORD.findall(' '.join(own)))} "
        for sentence in re.split(r"(?<=[.!?])\s+", text):
            words = _WORD.findall(sentence)
            for start, phrase in _phrases(words):
                first_word = start == 0 and " " not in phrase
                if phrase in self._names and not first_word and f" {phrase} " not in fields:
                    return True
        return False

    def _claims_another(self, text: str, own: Sequence[str]) -> bool:
        """Return True if a claim of the text names categories, none of which occurs in a field of the item."""
        fields = f" {_folded(' '.join(own))} "
        for claim in _CLAIM.findall(text):
            words = _folded(_END_OF_CLAIM.split(claim)[0]).split()
            said = {phrase for _, phrase in _phrases(words) if phrase in self._categories}
            if said and not any(f" {phrase} " in fields for phrase in said):
                return True
        return False


def _phrases(words: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yield (start, text) of every run of up to :data:`MOST_WORDS` words."""
    for start in range(len(words)):
        for end in range(start + 1, min(start + MOST_WORDS, len(words)) + 1):
            yield start, " ".join(words[start:end])


def _is_name(value: Any) -> bool:
    """Return True if a value looks like a name in prose: a capital first letter but not all capitals, at least 3
    characters, only words and single spaces, and at most :data:`MOST_WORDS` words."""
    words = _WORD.findall(value)
    written = " ".join(words) == value
    return written and len(value) >= 3 and len(words) <= MOST_WORDS and value[0].isupper() and not value.isupper()


def _folded(text: str) -> str:
    """Return the words in lower case, without a plural s."""
    words = _WORD.findall(text.casefold())
    return " ".join(
        word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word for word in words
    )


def numbers_in(text: str) -> set[str]:
    """Return the numbers in a text in canonical form: 12.50 becomes 12.5, and 1,000 becomes 1000."""
    found = set()
    for number in _NUMBER.findall(text):
        whole = re.sub(r",(?=\d{3}\b)", "", number).replace(",", ".")
        found.add((whole.rstrip("0").rstrip(".") if whole.count(".") == 1 else whole).lstrip("0") or "0")
    return found


def flagged_stock(table: pl.DataFrame) -> pl.DataFrame:
    """Add the flag :data:`STOCK` to texts that consist only of stock phrases, and return the table.

    Flagged and empty texts get a null in the column ``text``.

    Args:
        table: table with ``text``, ``said`` and ``flagged``, see :data:`taiji.data.knowledge_rows.SCHEMA`; its existing
            :data:`STOCK` flags are replaced.
    """
    sentences = [
        {_folded(sentence) for sentence in re.split(r"(?<=[.!?])\s+", said) if sentence} for said in table["said"]
    ]
    counts = Counter(sentence for row in sentences for sentence in row)
    most = max(STOCK_ITEMS, STOCK_SHARE * len(table))
    flags = []
    for row, flagged in zip(sentences, table["flagged"]):
        others = [flag for flag in flagged.split(", ") if flag and flag != STOCK]
        flags.append(", ".join([*others, STOCK] if row and all(counts[part] >= most for part in row) else others))
    usable = pl.when((pl.col("said") != "") & (pl.col("flagged") == "")).then("said")
    return table.with_columns(flagged=pl.Series(flags, dtype=pl.String)).with_columns(text=usable)
