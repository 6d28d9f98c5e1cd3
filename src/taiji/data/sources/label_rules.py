"""Rules of labels: columns of yes and no, comparisons with constants, and ``and``, ``or``, ``not`` between them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Literal

import polars as pl

NUMBER = re.compile(r"^[+-]?(\d++(?:\.\d*+)?|\.\d++)([eE][+-]?\d++)?$")
TOKEN = re.compile(
    r"""(?:(?P<quoted>'[^']*'|"[^"]*")|`(?P<column>[^`]+)`|(?P<sign>>=|<=|==|!=|<>|=|>|<)|(?P<mark>[()\[\],])
    |(?P<word>(?:(?:and|or|not|in|is)(?=[(\[]))|[^\s()\[\],<>=!`'"][^\s()\[\],<>=!`]*(?:\([^\s()]*\)[^\s()\[\],<>=!`]*)*))\s*+""",
    re.VERBOSE | re.IGNORECASE,
)
KEYWORDS = ("and", "or", "not", "in", "is")
EMPTY = ("null", "empty", "missing")
ORDERS = (">=", "<=", ">", "<")
Value = float | str


@dataclass(frozen=True)
class Label:
    """One test: a constant, a column of yes and no, or a column compared with constants.

    Attributes:
        column: the column to read; None for a constant.
        sign: ``>= <= == != > <``, ``in``, ``not in``, ``is null`` or ``is not null``; None where the column (or constant) is the label itself.
        value: compared with (several of ``in``); or the constant.
    """

    column: str | None
    sign: str | None
    value: Value | tuple[Value, ...] | None

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that are read."""
        return () if self.column is None else (self.column,)

    @property
    def values(self) -> tuple[Value, ...]:
        """Constants that the column is compared with."""
        if self.value is None:
            return ()
        return self.value if isinstance(self.value, tuple) else (self.value,)


@dataclass(frozen=True)
class Combined:
    """Rules joined by ``and`` or ``or``, or one rule under ``not``."""

    word: Literal["and", "or", "not"]
    parts: tuple[Rule, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that are read, each once."""
        return tuple(dict.fromkeys(column for part in self.parts for column in part.columns))


Rule = Label | Combined


def parse_rule(rule: bool | int | str) -> Rule:
    """Return the rule that a mapping states: ``1``, ``clicked``, ``rating >= 4``, ``action in (buy, order) or not skipped``.

    A column with spaces needs no quotes unless a word in it is ``and``, ``or``, ``not``, ``in`` or ``is``; then it goes in backticks, and a value in
    quotes.

    Raises:
        ValueError: names the part that does not fit, and its place.
    """
    if not isinstance(rule, str):
        return Label(None, None, float(rule))
    return _Parser(rule).rule()


def evaluate(rule: Rule, test: Callable[[Label], pl.Series]) -> pl.Series:
    """Return a rule's truth in each row (null: unknown) by three-valued logic: ``unknown or true`` is true, ``unknown and true`` unknown.

    Args:
        rule: the rule.
        test: evaluates one test for each row, with null where unknown.
    """
    if isinstance(rule, Label):
        return test(rule)
    parts = [evaluate(part, test) for part in rule.parts]
    if rule.word == "not":
        return ~parts[0]
    return reduce(lambda left, right: left & right if rule.word == "and" else left | right, parts)


def column_text(column: str) -> str:
    """Return a column's name as written in a rule: in backticks if the bare name would be misread."""
    try:
        plain = parse_rule(column) == Label(column, None, None) and parse_rule(f"{column} == 1").columns == (column,)
    except ValueError:
        plain = False
    return column if plain else f"`{column}`"


def value_text(value: str) -> str:
    """Return a text as written in a rule: in quotes unless it is one plain word."""
    if value.replace("_", "").isalnum() and not value.isdigit() and value.lower() not in KEYWORDS:
        return value
    return f'"{value}"' if "'" in value else f"'{value}'"


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    start: int
    end: int

    def says(self, *words: str) -> bool:
        return self.kind in ("word", "mark") and self.text.lower() in words


class _Parser:
    """Reads a rule by recursive descent: or, and, not, test."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.tokens = list(self._cut())
        self.place = 0

    def rule(self) -> Rule:
        if not self.tokens:
            raise ValueError("a rule is empty")
        found = self._either()
        if self._next() is not None:
            raise self._error("`and`, `or` or the end")
        return found

    def _cut(self) -> Iterator[_Token]:
        end = len(self.source) - len(self.source.lstrip())
        while end < len(self.source):
            match = TOKEN.match(self.source, end)
            if match is None:
                raise ValueError(f"{self.source[end:].strip()!r} in {self.source!r} cannot be read")
            kind = str(match.lastgroup)
            yield _Token(kind, match[kind], match.start(kind), match.end(kind))
            end = match.end()

    def _next(self) -> _Token | None:
        return self.tokens[self.place] if self.place < len(self.tokens) else None

    def _take(self, *words: str) -> bool:
        token = self._next()
        if token is not None and token.says(*words):
            self.place += 1
            return True
        return False

    def _error(self, expected: str) -> ValueError:
        token = self._next()
        found = f"{self.source[token.start :]!r}" if token else "the end"
        return ValueError(f"in {self.source!r} {expected} was expected, found {found}")

    def _either(self) -> Rule:
        return self._joined("or", self._all)

    def _all(self) -> Rule:
        return self._joined("and", self._one)

    def _joined(self, word: Literal["and", "or"], part: Callable[[], Rule]) -> Rule:
        parts = [part()]
        while self._take(word):
            parts.append(part())
        return parts[0] if len(parts) == 1 else Combined(word, tuple(parts))

    def _one(self) -> Rule:
        if self._take("not"):
            return Combined("not", (self._one(),))
        if self._take("("):
            inner = self._either()
            if not self._take(")"):
                raise self._error("`)`")
            return inner
        return self._test()

    def _test(self) -> Label:
        column = self._column()
        token = self._next()
        if token is not None and token.kind == "sign":
            self.place += 1
            sign = token.text
            if sign in ("=", "<>"):
                raise ValueError(f"write {'==' if sign == '=' else '!='} for {sign} in {self.source!r}")
            label = Label(column, sign, self._value(sign))
            if (after := self._next()) is not None and after.kind == "sign":
                raise ValueError(f"compare once and join by `and`: {column} {sign} … and {column} {after.text} …")
            return label
        if self._take("is"):
            negated = self._take("not")
            if not self._take(*EMPTY):
                raise self._error("`null`")
            return Label(column, "is not null" if negated else "is null", None)
        if token is not None and token.says("not") and self._following("in"):
            self.place += 2
            return Label(column, "not in", self._list())
        if self._take("in"):
            return Label(column, "in", self._list())
        return Label(column, None, None)

    def _following(self, word: str) -> bool:
        return self.place + 1 < len(self.tokens) and self.tokens[self.place + 1].says(word)

    def _column(self) -> str:
        token = self._next()
        if token is not None and token.kind in ("column", "quoted"):
            self.place += 1
            return token.text if token.kind == "column" else token.text[1:-1]
        text = self._words("a column")
        follows = self._next()
        if NUMBER.match(text) and follows is not None and follows.kind == "sign":
            raise ValueError(f"the column comes first in {self.source!r} (or put a column called {text} in backticks)")
        return text

    def _words(self, expected: str, inside: bool = False) -> str:
        """Return words up to a sign, a keyword or a bracket as they are written; a comma ends them inside a list."""
        first = self.place
        while (token := self._next()) is not None and (
            (token.kind == "word" and not token.says(*KEYWORDS))
            or (not inside and token.says(",") and self.place > first)
        ):
            if token.text in ("&", "&&", "|", "||") and expected == "a column":
                raise ValueError(f"write {'and' if '&' in token.text else 'or'} for {token.text} in {self.source!r}")
            self.place += 1
        if self.place == first:
            raise self._error(expected)
        return self.source[self.tokens[first].start : self.tokens[self.place - 1].end].strip()

    def _value(self, sign: str, inside: bool = False) -> Value:
        token = self._next()
        if token is not None and token.kind == "quoted":
            self.place += 1
            value: Value = token.text[1:-1]
        else:
            text = self._words("a value", inside)
            value = float(text) if NUMBER.match(text) else text
        if sign in ORDERS and isinstance(value, str):
            raise ValueError(f"{sign} compares with a number, found {value!r}")
        return value

    def _list(self) -> tuple[Value, ...]:
        if not self._take("(", "["):
            raise self._error("`(`")
        values = [self._value("in", inside=True)]
        while self._take(","):
            values.append(self._value("in", inside=True))
        if not self._take(")", "]"):
            raise self._error("`,` or `)`")
        return tuple(values)
