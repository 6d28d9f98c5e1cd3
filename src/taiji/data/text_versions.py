"""Versions of the texts of items, each with the time from which it may be used. The texts come from titles and
categories, a template, or a column of the items or displays.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from taiji.core.errors import ConfigError, InputError
from taiji.data.availability import EVER, bound_times
from taiji.data.dataset import Dataset
from taiji.data.item_text import item_texts
from taiji.data.knowledge_rows import COLUMNS, listed_at
from taiji.data.vocabulary import stable_hash

Array = NDArray[Any]
NO_TEXT = 0
"""Version number for "no text"; the first version has the number 1."""


@dataclass(frozen=True, eq=False)
class TextVersions:
    """Versions of the texts of items, sorted by item and then by time.

    Attributes:
        items: dense item ids, (n,).
        since: time in microseconds from which each text may be used, (n,).
        texts: texts, (n,), none of them blank.
    """

    items: Array
    since: Array
    texts: tuple[str, ...]

    @classmethod
    def of(cls, items: Array, since: Array, texts: Sequence[str]) -> Self:
        """Return the given versions, sorted by item and time, without blank texts and without texts that equal the
        item's previous version."""
        order = np.lexsort((since, items))
        kept: list[int] = []
        last = (-1, "")
        for place in order.tolist():
            now = (int(items[place]), texts[place].strip())
            if now[1] and now != last:
                kept.append(place)
            last = now if now[1] else last
        return cls(items[kept].astype(np.int64), since[kept].astype(np.int64), tuple(texts[p].strip() for p in kept))

    def __len__(self) -> int:
        return len(self.items)

    def at(self, items: Array, times: Array) -> Array:
        """Return the number (from 1) of the current version of each item at each time, in the shape of ``items``; 0
        without a version.

        Args:
            items: dense ids of any shape; negative for no item.
            times: times in microseconds, of the same shape. A version is current from its own time on.
        """
        when, keys = self._keys
        if not len(keys):
            return np.zeros(items.shape, dtype=np.int64)
        asked = items.astype(np.int64) * (len(when) + 1) + np.searchsorted(when, times, side="right")
        place = np.searchsorted(keys, asked, side="right") - 1
        known = (items >= 0) & (place >= 0)
        return np.where(known & (self.items[place] == items), place + 1, NO_TEXT)

    @cached_property
    def _keys(self) -> tuple[Array, Array]:
        when = np.unique(self.since)
        return when, self.items * (len(when) + 1) + np.searchsorted(when, self.since, side="right")

    def tensors(self, dataset: Dataset) -> dict[str, Array]:
        """Return the versions as arrays: hashed item ids, times, UTF-8 bytes of all texts, and the position in these
        bytes at which each text ends."""
        encoded = [text.encode() for text in self.texts]
        return {
            "ids": _hashes(dataset)[self.items],
            "since": self.since,
            "characters": np.frombuffer(b"".join(encoded), dtype=np.uint8).copy(),
            "ends": np.cumsum([len(text) for text in encoded], dtype=np.int64),
        }

    @classmethod
    def restore(cls, tensors: Mapping[str, Array], dataset: Dataset) -> Self:
        """Restore the result of :meth:`tensors` for the items of a dataset. Versions of items that the dataset does
        not have are dropped."""
        characters, ends = bytes(tensors["characters"]), tensors["ends"]
        texts = [characters[start:end].decode() for start, end in zip(np.append(0, ends)[:-1], ends)]
        known = {hashed: item for item, hashed in enumerate(_hashes(dataset).tolist())}
        items = np.array([known.get(hashed, -1) for hashed in tensors["ids"].tolist()], dtype=np.int64)
        known_rows = np.flatnonzero(items >= 0)
        return cls.of(items[known_rows], tensors["since"][known_rows], [texts[place] for place in known_rows])

    def check(self, rows: pl.DataFrame, until: int, where: str) -> None:
        """Raise InputError if all texts of an item in the training rows were written after the training period.

        Args:
            rows: training rows with a column ``item``.
            until: end of the training period in microseconds.
            where: origin of the texts, for messages.
        """
        seen = np.unique(rows["item"].to_numpy())
        first = np.full(max(self.items.max(initial=0), seen.max(initial=0)) + 1, EVER.max)
        np.minimum.at(first, self.items, self.since)
        late = seen[(first[seen] >= until) & (first[seen] < EVER.max)]
        if len(late):
            raise InputError(
                "Texts were written after the period of the labels that they should help to predict.",
                where=where,
                expected=f"a first text of each item before {until} (microseconds)",
                found=f"{len(late)} of {len(seen)} items with a later first text, such as item {late[0]} at {first[late[0]]}",
                fix="write the texts from data that was known when an item was listed, remove these texts, or train on later rows",
            )


def _hashes(dataset: Dataset) -> Array:
    return stable_hash(dataset.items["item_id"].cast(pl.String).to_list())


def is_column(dataset: Dataset, source: str) -> bool:
    """Return True if a dataset has the columns that a text source names. An empty source names none."""
    if "{" in source:
        return set(_named(source)) <= set(dataset.items.columns)
    return not source or source in dataset.items.columns or source in dataset.events.columns


def text_versions(dataset: Dataset, source: str) -> TextVersions:
    """Return the versions of texts from a source, such as the setting ``ranking.texts``.

    Args:
        dataset: dataset of the items and displays.
        source: one of the following.

            - Empty: title and categories.
            - A column of the items. Its text is used from the time in ``<column>_at``. Without such a time, it is
              always used, except that ``knowledge`` (written by the stage ``item_knowledge``) is used only once the
              item is listed.
            - A template of columns of the items, such as "{title}, sold by {store}". Its text is used once all of
              these columns may be used.
            - A column of events that is known at the display. Each of its texts is used from the text's first display
              on.

    Raises:
        ConfigError: a column does not exist, or the template is invalid.
        InputError: the text of a display was written after the display.
    """
    everyone, ever = np.arange(dataset.n_items), np.full(dataset.n_items, EVER.min)
    if not source:
        return TextVersions.of(everyone, ever, item_texts(dataset))
    if "{" in source:
        texts = _filled(dataset.items, source)
        since = np.maximum.reduce([_since(dataset, name) for name in _named(source)])
        return TextVersions.of(everyone, since, texts)
    if source in dataset.items.columns:
        ever = _since(dataset, source)
        return TextVersions.of(everyone, ever, dataset.items[source].cast(pl.String).fill_null("").to_list())
    if source in dataset.event_columns.known_at_display and source in dataset.events.columns:
        return _displayed(dataset, source)
    offered = [*dataset.items.columns, *dataset.event_columns.known_at_display]
    raise ConfigError(
        "The source of texts is unknown.",
        where=f"ranking.texts: {source}",
        expected="a template, or a column of items, or of events that is known at the display: " + ", ".join(offered),
        found=source,
        fix="name one of these columns, or leave the setting empty for titles and categories",
    )


def _since(dataset: Dataset, column: str) -> Array:
    """Return the time from which the text of each item in a column may be used, (n_items,).

    It is the time in ``<column>_at``. If this time is missing, a text may always be used, except that ``knowledge`` may
    be used only once the item is listed.
    """
    times = bound_times(dataset.items, f"{column}_at", EVER.min)
    return np.where(times > EVER.min, times, listed_at(dataset)) if column == COLUMNS[0] else times


def _displayed(dataset: Dataset, column: str) -> TextVersions:
    written = f"{column}_at"
    names = ["item", "time", column, *([written] if written in dataset.events.columns else [])]
    shown = dataset.events.select(names).filter(pl.col(column).is_not_null())
    if written in names:
        late = shown.filter(pl.Series(bound_times(shown, written, EVER.min, "events")) > shown["time"])
        if len(late):
            raise InputError(
                "Texts were written after the displays to which they belong.",
                where=f"column {written} of events",
                expected="a time at or before the time of the event",
                found=f"{len(late)} of {len(shown)} rows with a later time, such as item {late['item'][0]} at {late['time'][0]}",
                fix="log the text that was displayed, or leave it empty",
            )
    first = shown.group_by("item", "time", maintain_order=True).agg(pl.col(column).first())
    return TextVersions.of(first["item"].to_numpy(), first["time"].to_numpy(), first[column].cast(pl.String).to_list())


def _named(template: str) -> list[str]:
    """Return the names in braces of a template."""
    try:
        return [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise ConfigError(
            "A template is invalid.",
            where=f"ranking.texts: {template}",
            expected="text with names of columns in braces, such as {title}",
            found=str(error),
        ) from error


def _filled(items: pl.DataFrame, template: str) -> list[str]:
    """Fill a template with the columns of each item. The text is empty if all of these columns are empty."""
    names = _named(template)
    missing = sorted(set(names) - set(items.columns))
    if missing or not names:
        raise ConfigError(
            "A template names no column, or one that the items do not have.",
            where=f"ranking.texts: {template}",
            expected="columns of the items in braces: " + ", ".join(items.columns),
            found=", ".join(missing) or "none",
        )
    rows = items.select(pl.col(name).cast(pl.String).fill_null("") for name in dict.fromkeys(names)).to_dicts()
    try:
        return [template.format(**row) if any(row.values()) else "" for row in rows]
    except (ValueError, LookupError, AttributeError) as error:
        raise ConfigError(
            "A template is invalid.",
            where=f"ranking.texts: {template}",
            expected="columns in braces, without a number format: their values are texts",
            found=str(error),
        ) from error
