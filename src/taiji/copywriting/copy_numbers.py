"""Numbers of a copy, with what they count: 40 cm does not ground 40 %, $40 or 40 nights, and a price of 3 does not ground that 3 are left."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from taiji.reasoning.knowledge_guard import numbers_in

_LEFT = "left|remaining|remains|available|more|get|day|hour|minute|week|night|star|piece|in stock|of (?:the )?last"
_ONE = re.compile(rf"\b(?:(?:only|just|last|buy) one\b|one (?:{_LEFT})s?\b)", re.IGNORECASE)
_SIGNS = r"[^\w\s.,;:!?…'’\"“”„()/&–—-]"
LEAD = 40
"""Characters before a number in which the word before it is looked for."""
_WORD = re.compile(r"[^\W\d_]+")
_LAST_WORD = re.compile(r"(?<![^\W\d_])([^\W\d_]+)[\s-]*$")
_COUNTED = re.compile(
    rf"(?P<before>(?:{_SIGNS}|(?<![^\s(])[-–—−]){{0,4}})\s?(?P<number>\d+(?:[.,]\d+)*)\s?(?P<after>{_SIGNS}{{0,4}})[ \-]?(?P<unit>[^\W\d_]*)"
)


@dataclass(frozen=True)
class Counted:
    """A number in a text.

    Attributes:
        number: in one form. signs: beside it. lead: word before it. unit: word behind it, without a plural's s. Words that count nothing are left empty.
    """

    number: str
    signs: frozenset[str]
    lead: str
    unit: str


def counted(text: str, silent: frozenset[str] = frozenset()) -> list[Counted]:
    """Return the numbers of a text.

    Args:
        text: in one Unicode form. silent: words in small letters that count nothing (function words).
    """
    found = []
    for match in _COUNTED.finditer(text):
        lead = _LAST_WORD.search(text[max(match.start() - LEAD, 0) : match.start()])
        words = [lead[1].casefold() if lead else "", match["unit"].casefold()]
        before, unit = ("" if word in silent else word.removesuffix("s") for word in words)
        signs = frozenset((match["before"] + match["after"]).strip())
        found += [Counted(number, signs, before, unit) for number in numbers_in(match["number"])]
    return found


class CatalogueNumbers:
    """Numbers and counting words that the catalogue grounds for an item.

    Args:
        catalogue: facts. silent: see :func:`counted`.
        counting: words in small letters that count; the catalogue must have the word itself. "One" counts beside a word such as "left".
    """

    def __init__(self, catalogue: Sequence[str], silent: frozenset[str], counting: frozenset[str]) -> None:
        self.silent, self.counting = silent, counting
        self.known = [one for fact in catalogue for one in counted(fact, silent)]
        self.words = {word for fact in catalogue for word in _WORD.findall(fact.casefold())}
        self.one = any(_ONE.search(fact) for fact in catalogue)

    def faults(self, text: str) -> bool:
        """Return whether a text, without its item's whole title, has a number, a counting word or a sign of money or shares that the catalogue does not have so."""
        return (
            not all(any(_grounds(fact, said) for fact in self.known) for said in counted(text, self.silent))
            or any(map(_counts, _COUNTED.sub("", text)))
            or bool(self.counting.intersection(_WORD.findall(text.casefold())) - self.words)
            or (not self.one and bool(_ONE.search(text)))
        )


def _grounds(fact: Counted, said: Counted) -> bool:
    """Return whether a number of the catalogue grounds one of a copy: the same signs, but for a currency that is left out, and the same word behind it or before it."""
    left_out = {sign for sign in fact.signs - said.signs if unicodedata.category(sign) != "Sc"}
    same = fact.number == said.number and said.signs <= fact.signs and not left_out
    return same and (said.unit == fact.unit or bool(said.lead and said.lead == fact.lead))


def _counts(letter: str) -> bool:
    """Return whether a character counts or prices without being a decimal digit: a numeral of a script without digits, a number in a circle, a currency, per cent."""
    return (unicodedata.numeric(letter, None) is not None and not letter.isdecimal()) or (
        unicodedata.category(letter) == "Sc" or letter in "%‰‱"
    )
