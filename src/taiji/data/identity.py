"""Normalise ids so that they match across files. Discovery and loading use the same form of the ids, which is chosen by
comparing all ids of both tables.

An id is never changed if two different ids of a table would become equal (``007`` and ``7`` may both exist). Integers
are never converted to floats.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from taiji.data.reading_report import IdReading

EXACT = 2**53
"""Bound below which all integers are represented exactly as floats."""
MISSING = ("", "NULL", "null", "\\N", "NaN", "nan", "None", "<NA>", "undefined")
"""Texts that programs write for a missing value. They are never ids."""
SHOWN = 3
"""Largest number of examples in a message."""


def plain(ids: pl.Series) -> pl.Series:
    """Convert ids to integers, or to text without surrounding spaces, with null for the texts in
    :data:`MISSING`. Values of other types are unchanged."""
    kind = ids.dtype
    if kind == pl.Categorical or isinstance(kind, pl.Enum):
        ids = ids.cast(pl.String)
    elif kind == pl.Binary:
        texts = ids.cast(pl.String, strict=False)
        ids = texts if texts.null_count() == ids.null_count() else ids
    elif kind.is_float():
        known = ids.fill_nan(None)
        exact = known.drop_nulls()
        ids = known.cast(pl.Int64) if bool(((exact == exact.floor()) & (exact.abs() < EXACT)).all()) else ids
    elif kind.is_decimal():
        texts = ids.cast(pl.String).str.replace(r"\.0+$", "")
        ids = texts if texts.str.contains(".", literal=True).any() else _integers(texts)
    elif kind in (pl.UInt64, pl.Int128):
        ids = _integers(ids.cast(pl.String))
    if ids.dtype == pl.String:
        ids = ids.str.strip_chars()
        ids = ids.set(ids.is_in(MISSING), None)
    return ids


def _integers(texts: pl.Series) -> pl.Series:
    numbers = texts.cast(pl.Int64, strict=False)
    return numbers if numbers.null_count() == texts.null_count() else texts


@dataclass(frozen=True)
class Joined:
    """Ids of a table and of the events that refer to them, in a common form.

    Attributes:
        table: ids of the table, in its own spelling.
        events: ids of the events, in the spelling of the table.
        match: counts of matching ids in both directions.
        changes: notes on ids that are spelt differently in the events, as sentences.
    """

    table: pl.Series
    events: pl.Series
    match: IdReading
    changes: tuple[str, ...]


def joined(table: pl.Series, events: pl.Series, column: str, name: str) -> Joined:
    """Convert the ids of two files to a common form.

    Args:
        table: ids of the table of items or users.
        events: ids in the events.
        column: name of the column of ids in the events, for the report and for messages.
        name: name of the table, for the report.
    """
    table, events = plain(table), plain(events)
    if (table.dtype == pl.String) != (events.dtype == pl.String):
        table, events = _text(table), _text(events)
    changes: list[str] = []
    near: dict[str, str] = {}
    if table.dtype == events.dtype == pl.String:
        spellings, changes = _spellings(table.drop_nulls().unique(), events.drop_nulls().unique(), column)
        if len(spellings):
            events = events.replace(spellings["given"], spellings["known"])
        unknown = events.drop_nulls().unique()
        unknown = unknown.filter(~unknown.is_in(table.drop_nulls().implode()))
        near = dict(_pairs(unknown, table.drop_nulls().unique(), _folded).iter_rows())
    known, named = table.drop_nulls().unique(), events.drop_nulls()
    if known.dtype != named.dtype:  # integers of different widths
        known, named = (s.cast(pl.Int64) if s.dtype.is_integer() else s for s in (known, named))
    if known.dtype != named.dtype:  # neither integers nor text, which validation reports
        known, named = known.cast(pl.String), named.cast(pl.String)
    distinct = named.unique()
    hits = distinct.is_in(known.implode())
    match = IdReading(
        column=column,
        table=name,
        ids=len(known),
        used=int(hits.sum()),
        event_ids=len(distinct),
        event_ids_known=int(hits.sum()),
        rows=len(named),
        rows_known=int(named.is_in(known.implode()).sum()),
        near=len(near),
        near_examples=tuple(sorted(near.items())[:SHOWN]),
    )
    return Joined(table, events, match, tuple(changes))


def shortened(ids: pl.Series) -> str:
    """Describe ids that a spreadsheet wrote as ``1.23457E+12``; return an empty string if there are none."""
    if ids.dtype != pl.String:
        return ""
    found = ids.filter(ids.str.contains(r"^[0-9]([.,][0-9]+)?[eE]\+[0-9]{2,}$").fill_null(False)).unique().sort()
    if found.is_empty():
        return ""
    shown = ", ".join(map(repr, found.head(SHOWN).to_list()))
    return f"{len(found):,} distinct ids of column {ids.name} are written like {shown}: a spreadsheet dropped their last digits, so different ids may have become equal."


def _text(ids: pl.Series) -> pl.Series:
    return ids if ids.dtype == pl.String else ids.cast(pl.String)


def _whole(texts: pl.Series) -> pl.Series:
    """Convert ``12.0`` to ``12``."""
    return texts.str.replace(r"^([+-]?[0-9]+)\.0+$", "${1}")


def _unpadded(texts: pl.Series) -> pl.Series:
    """Convert ``00007`` and ``007.0`` to ``7``."""
    return _whole(texts).str.replace(r"^0+([0-9]+)$", "${1}")


def _folded(texts: pl.Series) -> pl.Series:
    """Convert ids to a form that ignores case, width, padding, spaces, dashes, underscores, slashes, dots and
    commas."""
    return _unpadded(texts.str.normalize("NFKC").str.to_lowercase()).str.replace_all(r"[\s\p{Cf}_\-./,]+", "")


def _spellings(known: pl.Series, named: pl.Series, column: str) -> tuple[pl.DataFrame, list[str]]:
    """Find ids that are spelt differently in the events. Return their spellings in the events (``given``) and in the
    table (``known``), and notes on them.

    A form, such as ids without padding, is used only if different ids of the table remain different in it, and so do
    different ids of the events. There is one exception: ``12.0`` and ``12`` in the events are the same id, because some
    programs write a column of integers with missing values as floats.
    """
    found, notes = pl.DataFrame(schema={"given": pl.String, "known": pl.String}), []
    for form, mixed in ((_whole, True), (_unpadded, False)):
        unknown = named.filter(~named.is_in(known.implode()) & ~named.is_in(found["given"].implode()))
        hits = _pairs(unknown, known, form)
        apart = _keeps_apart(form, known) and (mixed or _keeps_apart(form, named))
        if len(hits) and apart:
            found = pl.concat([found, hits])
            shown = ", ".join(f"{given!r} for {wanted!r}" for given, wanted in hits.head(SHOWN).iter_rows())
            notes.append(
                f"{len(hits):,} distinct {column}s are spelt differently in their table and were treated as the same ids: {shown}."
            )
    return found, notes


def _keeps_apart(form: Callable[[pl.Series], pl.Series], ids: pl.Series) -> bool:
    return form(ids).n_unique() == len(ids)


def _pairs(unknown: pl.Series, known: pl.Series, form: Callable[[pl.Series], pl.Series]) -> pl.DataFrame:
    """Return sorted columns ``given`` and ``known`` for the unknown ids that have the same form as a known id."""
    table = pl.DataFrame({"known": known, "form": form(known)}).sort("known").unique("form", keep="first")
    given = pl.DataFrame({"given": unknown, "form": form(unknown)})
    return given.join(table, on="form").select("given", "known").sort("given")


def alike(ids: pl.Series) -> list[tuple[str, str]]:
    """Return sorted pairs of ids of a column that differ only in spelling.

    If an id has more than two spellings, only the first two are returned.
    """
    texts = ids.drop_nulls().unique().sort()
    if texts.dtype != pl.String:
        return []
    rows = pl.DataFrame({"id": texts, "form": _folded(texts)}).filter(pl.col("form").is_duplicated())
    return [tuple(group[:2]) for group in rows.group_by("form", maintain_order=True).agg("id")["id"].to_list()]
