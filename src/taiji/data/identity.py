"""A normal form of ids shared across files, the same in linking and in loading, chosen from two whole tables.

An id is never changed where two different ids of one table would become one (``007`` and ``7`` may both exist). Whole
numbers never pass through floats.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from taiji.data.reading_report import IdReading

EXACT = 2**53
"""Whole numbers below this are exact as floats."""
MISSING = ("", "NULL", "null", "\\N", "NaN", "nan", "None", "<NA>", "undefined")
"""Texts that programs write for a missing value; nobody has such an id."""
SHOWN = 3
"""Near matches named."""


def plain(ids: pl.Series) -> pl.Series:
    """Return ids as integers or as text without spaces around it (:data:`MISSING` ones as null); what is neither stays as it is."""
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
    """Ids of a table and of the events that name them, in one form.

    Attributes:
        table: ids of the table, as it writes them.
        events: ids of the events, as the table writes them.
        match: counts of both directions.
        changes: sentences about ids that events write otherwise than the table.
    """

    table: pl.Series
    events: pl.Series
    match: IdReading
    changes: tuple[str, ...]


def joined(table: pl.Series, events: pl.Series, column: str, name: str) -> Joined:
    """Bring the ids of two files to one form.

    Args:
        table: ids of items or users, one row each.
        events: ids that events name.
        column: ``item_id`` or ``user_id``.
        name: name of the table.
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
    if known.dtype != named.dtype:  # integers of two widths
        known, named = (s.cast(pl.Int64) if s.dtype.is_integer() else s for s in (known, named))
    if known.dtype != named.dtype:  # neither integers nor text: the schema's check tells
        known, named = known.cast(pl.String), named.cast(pl.String)
    different = named.unique()
    hits = different.is_in(known.implode())
    match = IdReading(
        column=column,
        table=name,
        ids=len(known),
        used=int(hits.sum()),
        event_ids=len(different),
        event_ids_known=int(hits.sum()),
        rows=len(named),
        rows_known=int(named.is_in(known.implode()).sum()),
        near=len(near),
        near_examples=tuple(sorted(near.items())[:SHOWN]),
    )
    return Joined(table, events, match, tuple(changes))


def shortened(ids: pl.Series) -> str:
    """Return a sentence about ids that a spreadsheet wrote as ``1.23457E+12``; empty where there are none."""
    if ids.dtype != pl.String:
        return ""
    found = ids.filter(ids.str.contains(r"^[0-9]([.,][0-9]+)?[eE]\+[0-9]{2,}$").fill_null(False)).unique().sort()
    if found.is_empty():
        return ""
    shown = ", ".join(map(repr, found.head(SHOWN).to_list()))
    return f"{len(found):,} different ids of column {ids.name} are written like {shown}: a spreadsheet left out their last digits, and different ids have become one."


def _text(ids: pl.Series) -> pl.Series:
    return ids if ids.dtype == pl.String else ids.cast(pl.String)


def _whole(texts: pl.Series) -> pl.Series:
    """Return ``12.0`` as ``12``."""
    return texts.str.replace(r"^([+-]?[0-9]+)\.0+$", "${1}")


def _unpadded(texts: pl.Series) -> pl.Series:
    """Return ``00007`` and ``007.0`` as ``7``."""
    return _whole(texts).str.replace(r"^0+([0-9]+)$", "${1}")


def _folded(texts: pl.Series) -> pl.Series:
    """Return one text for ids that differ only in case, width, padding, spaces, dashes, dots or commas."""
    return _unpadded(texts.str.normalize("NFKC").str.to_lowercase()).str.replace_all(r"[\s\p{Cf}_\-./,]+", "")


def _spellings(known: pl.Series, named: pl.Series, column: str) -> tuple[pl.DataFrame, list[str]]:
    """Return ``given`` and ``known`` for ids that events write otherwise than the table, and what to say about it.

    A form counts only where it keeps all ids of the table apart, and all ids of the events; ``12.0`` beside ``12`` in the
    events alone is one id, because a column of whole numbers with gaps is written so.
    """
    found, said = pl.DataFrame(schema={"given": pl.String, "known": pl.String}), []
    for form, mixed in ((_whole, True), (_unpadded, False)):
        unknown = named.filter(~named.is_in(known.implode()) & ~named.is_in(found["given"].implode()))
        hits = _pairs(unknown, known, form)
        apart = _keeps_apart(form, known) and (mixed or _keeps_apart(form, named))
        if len(hits) and apart:
            found = pl.concat([found, hits])
            shown = ", ".join(f"{given!r} for {wanted!r}" for given, wanted in hits.head(SHOWN).iter_rows())
            said.append(
                f"{len(hits):,} different {column}s are written otherwise than in their table and were taken for the same: {shown}."
            )
    return found, said


def _keeps_apart(form: Callable[[pl.Series], pl.Series], ids: pl.Series) -> bool:
    return form(ids).n_unique() == len(ids)


def _pairs(unknown: pl.Series, known: pl.Series, form: Callable[[pl.Series], pl.Series]) -> pl.DataFrame:
    """Return ``given`` and ``known`` for unknown ids that have the form of a known one, in order."""
    table = pl.DataFrame({"known": known, "form": form(known)}).sort("known").unique("form", keep="first")
    given = pl.DataFrame({"given": unknown, "form": form(unknown)})
    return given.join(table, on="form").select("given", "known").sort("given")


def alike(ids: pl.Series) -> list[tuple[str, str]]:
    """Return pairs of different ids of one column that differ only in spelling, in order."""
    texts = ids.drop_nulls().unique().sort()
    if texts.dtype != pl.String:
        return []
    rows = pl.DataFrame({"id": texts, "form": _folded(texts)}).filter(pl.col("form").is_duplicated())
    return [tuple(group[:2]) for group in rows.group_by("form", maintain_order=True).agg("id")["id"].to_list()]
