"""Parse cells as yes or no, with words in many languages. The meaning of letters and marks is inferred from the whole
column."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from taiji.data.sources.number_cells import MISSING, MOST

YES_WORDS = (
    "1 1.0 true yes wahr ja vrai oui verdadero sí si verdadeiro sim vero sì waar da да истина prawda tak pravda ano áno igen kyllä evet doğru "
    "ναι igaz sant sann jah jā taip 是 对 真 有 はい 真 有り 예 네 참 نعم כן हाँ ใช่ có ya on wahr ✓ ✔ ☑ ✅"
)
NO_WORDS = (
    "0 0.0 false no falsch nein faux non falso não nao onwaar nee net нет ложь fałsz nie nepravda ne nem ei hayır yanlış "
    "όχι hamis falsk nej nei nē ni 否 错 假 无 不是 いいえ 偽 無し 아니오 아니요 거짓 لا לא नहीं ไม่ không tidak off ✗ ✘ ☐ ❌ not"
)
YES, NO = frozenset(YES_WORDS.split()), frozenset(NO_WORDS.split())
LETTERS = (
    ("y", "n"),
    ("j", "n"),
    ("t", "f"),
    ("o", "n"),
    ("s", "n"),
    ("v", "f"),
    ("w", "f"),
    ("t", "n"),
    ("a", "n"),
    ("i", "n"),
    ("d", "n"),
    ("д", "н"),
    ("k", "e"),
    ("e", "h"),
    ("○", "×"),
    ("+", "-"),
)
"""Pairs of letters for yes and no. All letters of a column come from one pair."""
MARKS = frozenset("x✓✔☑✅*•●")
"""Marks for yes. In a column that holds only one of them, an empty cell means no."""
UNKNOWN = frozenset(MISSING) | {"unknown", "unbekannt", "inconnu", "未知"}


@dataclass(frozen=True)
class Truth:
    """Result of reading a column as yes and no.

    Attributes:
        values: true or false; null where a cell is empty (unless ``mark`` is set), means unknown, or cannot be read.
        known: share of the cells that could be read, among those that are neither empty nor mean unknown.
        empty: number of cells that are empty or mean unknown; 0 if ``mark`` is set.
        mark: the only mark in the column if empty cells were read as no; otherwise empty.
        sides: the values (true, false) that occur in the column.
    """

    values: pl.Series
    known: float
    empty: int
    mark: str
    sides: frozenset[bool]


def read_truth(values: pl.Series) -> Truth:
    """Read a column as yes and no. It may hold booleans, 0 and 1, words in many languages, letters, or marks."""
    if values.dtype == pl.Boolean:
        return _truth(values, values.is_null())
    if values.dtype.is_numeric():
        numbers = values.cast(pl.Float64).fill_nan(None)
        return _truth(_read(numbers, {1.0: True, 0.0: False}), numbers.is_null())
    folded = values.cast(pl.String).str.strip_chars().str.to_lowercase()
    distinct = set(folded.unique().drop_nulls().to_list())
    if len(answers := distinct - {"", "-"}) == 1 and answers <= MARKS:
        marked = folded.is_in(list(answers)).fill_null(False)
        return Truth(marked, 1.0, 0, next(iter(answers)), frozenset(marked.unique().to_list()))
    letters = max(LETTERS, key=lambda pair: len(distinct & set(pair)))
    meaning = dict.fromkeys(NO, False) | dict.fromkeys(YES, True)
    unknown = UNKNOWN
    if distinct & set(letters):
        meaning |= {letters[0]: True, letters[1]: False}
        unknown = UNKNOWN - set(letters) if set(letters) <= distinct else UNKNOWN
        meaning = {word: answer for word, answer in meaning.items() if word not in unknown}
    empty = folded.is_null() | folded.is_in(list(unknown))
    return _truth(_read(folded, meaning), empty)


def understood(truth: Truth) -> bool:
    """Return True if enough cells of a column could be read to treat the others as broken."""
    return bool(truth.sides) and truth.known >= MOST


def _read(values: pl.Series, meaning: dict[str, bool] | dict[float, bool]) -> pl.Series:
    return values.replace_strict(list(meaning), list(meaning.values()), default=None, return_dtype=pl.Boolean).alias(
        values.name
    )


def _truth(values: pl.Series, empty: pl.Series) -> Truth:
    present = len(values) - int(empty.sum())
    read = len(values) - values.null_count()
    return Truth(
        values,
        read / present if present else 0.0,
        int(empty.sum()),
        "",
        frozenset(values.drop_nulls().unique().to_list()),
    )
