"""Parse and evaluate label rules: yes/no columns and comparisons with constants, combined by ``and``, ``or`` and
``not``."""

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
    """Single test of a rule: a constant, a yes/no column, or the comparison of a column with constants.

    Attributes:
        column: column to read; None for a constant.
        sign: ``>= <= == != > <``, ``in``, ``not in``, ``is null`` or ``is not null``; None if the column or the
            constant is the label itself.
        value: value to compare with (a tuple for ``in`` and ``not in``), or the constant.
    """

    column: str | None
    sign: str | None
    value: Value | tuple[Value, ...] | None

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that the test reads."""
        return () if self.column is None else (self.column,)

    @property
    def values(self) -> tuple[Value, ...]:
        """Constants of the test, as a tuple."""
        if self.value is None:
            return ()
        return self.value if isinstance(self.value, tuple) else (self.value,)


@dataclass(frozen=True)
class Combined:
    """Rules combined by ``and`` or ``or``, or one rule negated by ``not``."""

    word: Literal["and", "or", "not"]
    parts: tuple[Rule, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that the rules read, without duplicates."""
        return tuple(dict.fromkeys(column for part in self.parts for column in part.columns))


Rule = Label | Combined


def parse_rule(rule: bool | int | str) -> Rule:
    """Parse a rule of a mapping: ``1``, ``clicked``, ``rating >= 4``, ``action in (buy, order) or not skipped``.

    Column names and values may contain spaces. If one of them contains the word ``and``, ``or``, ``not``, ``in`` or
    ``is``, write a column name in backticks and a value in quotes.

    Raises:
        ValueError: the rule is invalid; the message quotes the invalid part.
    """
    if not isinstance(rule, str):
        return Label(None, None, float(rule))
    return _Parser(rule).rule()


def evaluate(rule: Rule, test: Callable[[Label], pl.Series]) -> pl.Series:
    """Evaluate a rule in each row by three-valued logic, with null for unknown: ``unknown or true`` is true, ``unknown
    and true`` is unknown.

    Args:
        rule: rule to evaluate.
        test: function that evaluates one test in each row, with null for unknown.
    """
    if isinstance(rule, Label):
        return test(rule)
    parts = [evaluate(part, test) for part in rule.parts]
    if rule.word == "not":
        return ~parts[0]
    return reduce(lambda left, right: left & right if rule.word == "and" else left | right, parts)


def column_text(column: str) -> str:
    """Return the name of a column as it is written in a rule: in backticks if it would be misread otherwise."""
    try:
        plain = parse_rule(column) == Label(column, None, None) and parse_rule(f"{column} == 1").columns == (column,)
    except ValueError:
        plain = False
    return column if plain else f"`{column}`"


def number_text(value: float) -> str:
    """Return a number as it is written in a rule, with all of its digits."""
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def value_text(value: str) -> str:
    """Return a text as it is written in a rule: in quotes unless it is a single plain word."""
    if value.replace("_", "").isalnum() and not value.isdigit() and value.lower() not in KEYWORDS:
        return value
    return f'"{value}"' if "'" in value else f"'{value}'"


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    start: int
    end: int

    def is_one_of(self, *words: str) -> bool:
        return self.kind in ("word", "mark") and self.text.lower() in words


class _Parser:
    """Recursive-descent parser of a rule. The operator ``or`` binds weakest, then ``and``, then ``not``."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.tokens = list(self._tokenise())
        self.place = 0

    def rule(self) -> Rule:
        if not self.tokens:
            raise ValueError("the rule is empty")
        found = self._parse_or()
        if self._peek() is not None:
            raise self._error("`and`, `or` or the end")
        return found

    def _tokenise(self) -> Iterator[_Token]:
        end = len(self.source) - len(self.source.lstrip())
        while end < len(self.source):
            match = TOKEN.match(self.source, end)
            if match is None:
                raise ValueError(f"{self.source[end:].strip()!r} in {self.source!r} cannot be read")
            kind = str(match.lastgroup)
            yield _Token(kind, match[kind], match.start(kind), match.end(kind))
            end = match.end()

    def _peek(self) -> _Token | None:
        return self.tokens[self.place] if self.place < len(self.tokens) else None

    def _accept(self, *words: str) -> bool:
        token = self._peek()
        if token is not None and token.is_one_of(*words):
            self.place += 1
            return True
        return False

    def _error(self, expected: str) -> ValueError:
        token = self._peek()
        found = f"{self.source[token.start :]!r}" if token else "the end"
        return ValueError(f"in {self.source!r}: expected {expected}, found {found}")

    def _parse_or(self) -> Rule:
        return self._parse_operands("or", self._parse_and)

    def _parse_and(self) -> Rule:
        return self._parse_operands("and", self._parse_not)

    def _parse_operands(self, word: Literal["and", "or"], part: Callable[[], Rule]) -> Rule:
        parts = [part()]
        while self._accept(word):
            parts.append(part())
        return parts[0] if len(parts) == 1 else Combined(word, tuple(parts))

    def _parse_not(self) -> Rule:
        if self._accept("not"):
            return Combined("not", (self._parse_not(),))
        if self._accept("("):
            inner = self._parse_or()
            if not self._accept(")"):
                raise self._error("`)`")
            return inner
        return self._parse_test()

    def _parse_test(self) -> Label:
        column = self._column()
        token = self._peek()
        if token is not None and token.kind == "sign":
            self.place += 1
            sign = token.text
            if sign in ("=", "<>"):
                raise ValueError(f"write {'==' if sign == '=' else '!='} instead of {sign} in {self.source!r}")
            label = Label(column, sign, self._value(sign))
            if (after := self._peek()) is not None and after.kind == "sign":
                raise ValueError(
                    f"a comparison has two sides; combine two comparisons with `and`: {column} {sign} … and {column} {after.text} …"
                )
            return label
        if self._accept("is"):
            negated = self._accept("not")
            if not self._accept(*EMPTY):
                raise self._error("`null`")
            return Label(column, "is not null" if negated else "is null", None)
        if token is not None and token.is_one_of("not") and self._following("in"):
            self.place += 2
            return Label(column, "not in", self._list())
        if self._accept("in"):
            return Label(column, "in", self._list())
        return Label(column, None, None)

    def _following(self, word: str) -> bool:
        return self.place + 1 < len(self.tokens) and self.tokens[self.place + 1].is_one_of(word)

    def _column(self) -> str:
        token = self._peek()
        if token is not None and token.kind in ("column", "quoted"):
            self.place += 1
            return token.text if token.kind == "column" else token.text[1:-1]
        text = self._words("a column")
        follows = self._peek()
        if NUMBER.match(text) and follows is not None and follows.kind == "sign":
            raise ValueError(
                f"write the column first in {self.source!r} (or put backticks around a column named {text})"
            )
        return text

    def _words(self, expected: str, inside: bool = False) -> str:
        """Return the source text up to the next comparison sign, keyword or bracket; inside a list, also up to the next
        comma."""
        first = self.place
        while (token := self._peek()) is not None and (
            (token.kind == "word" and not token.is_one_of(*KEYWORDS))
            or (not inside and token.is_one_of(",") and self.place > first)
        ):
            if token.text in ("&", "&&", "|", "||") and expected == "a column":
                raise ValueError(
                    f"write {'and' if '&' in token.text else 'or'} instead of {token.text} in {self.source!r}"
                )
            self.place += 1
        if self.place == first:
            raise self._error(expected)
        return self.source[self.tokens[first].start : self.tokens[self.place - 1].end].strip()

    def _value(self, sign: str, inside: bool = False) -> Value:
        token = self._peek()
        if token is not None and token.kind == "quoted":
            self.place += 1
            value: Value = token.text[1:-1]
        else:
            text = self._words("a value", inside)
            value = float(text) if NUMBER.match(text) else text
        if sign in ORDERS and isinstance(value, str):
            raise ValueError(f"{sign} requires a number, found {value!r}")
        return value

    def _list(self) -> tuple[Value, ...]:
        if not self._accept("(", "["):
            raise self._error("`(`")
        values: list[Value] = []
        spelt: list[str] = []
        while not values or self._accept(","):
            first = self.place
            value = self._value("in", inside=True)
            values.append(value)
            end = self.tokens[self.place - 1].end
            spelt.append(value if isinstance(value, str) else self.source[self.tokens[first].start : end].strip())
        if not self._accept(")", "]"):
            raise self._error("`,` or `)`")
        # In a list that contains a word, numbers are codes and keep their spelling (007, 1.50, 1234567).
        return tuple(spelt) if any(isinstance(value, str) for value in values) else tuple(values)
