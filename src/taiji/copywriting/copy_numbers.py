"""Check numbers in a copy together with their units: 40 cm in the catalogue does not support 40 %, $40 or 40 nights,
and a price of 3 does not support "3 left".
"""

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
"""Number of characters before a number in which to search for the preceding word."""
_WORD = re.compile(r"[^\W\d_]+")
_LAST_WORD = re.compile(r"(?<![^\W\d_])([^\W\d_]+)[\s-]*$")
_COUNTED = re.compile(
    rf"(?P<before>(?:{_SIGNS}|(?<![^\s(])[-–—−]){{0,4}})\s?(?P<number>\d+(?:[.,]\d+)*)\s?(?P<after>{_SIGNS}{{0,4}})[ \-]?(?P<unit>[^\W\d_]*)"
)


@dataclass(frozen=True)
class Counted:
    """Number in a text.

    Attributes:
        number: number in canonical form.
        signs: signs next to it.
        lead: word before it, without a plural s; empty for a function word.
        unit: word after it, without a plural s; empty for a function word.
    """

    number: str
    signs: frozenset[str]
    lead: str
    unit: str


def counted(text: str, silent: frozenset[str] = frozenset()) -> list[Counted]:
    """Return the numbers of a text.

    Args:
        text: text in Unicode form NFKC.
        silent: lower-case function words, which cannot be units.
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
    """Numbers and counting words that the catalogue supports for an item.

    Args:
        catalogue: facts of the catalogue.
        silent: see :func:`counted`.
        counting: lower-case number words. Such a word is supported only if the catalogue contains the same word. "One"
            is a number only next to a word such as "left".
    """

    def __init__(self, catalogue: Sequence[str], silent: frozenset[str], counting: frozenset[str]) -> None:
        self.silent, self.counting = silent, counting
        self.known = [one for fact in catalogue for one in counted(fact, silent)]
        self.words = {word for fact in catalogue for word in _WORD.findall(fact.casefold())}
        self.one = any(_ONE.search(fact) for fact in catalogue)

    def faults(self, text: str) -> bool:
        """Return True if a text (from which the item's title has been removed) has a number, counting word, currency
        sign or per cent sign that the catalogue does not support."""
        return (
            not all(any(_grounds(fact, said) for fact in self.known) for said in counted(text, self.silent))
            or any(map(_counts, _COUNTED.sub("", text)))
            or bool(self.counting.intersection(_WORD.findall(text.casefold())) - self.words)
            or (not self.one and bool(_ONE.search(text)))
        )


def _grounds(fact: Counted, said: Counted) -> bool:
    """Return True if the number ``fact`` in the catalogue supports the number ``said`` in a copy.

    Both must have the same value, the same signs (the copy may omit a currency sign), and the same word after or before
    the number.
    """
    left_out = {sign for sign in fact.signs - said.signs if unicodedata.category(sign) != "Sc"}
    same = fact.number == said.number and said.signs <= fact.signs and not left_out
    return same and (said.unit == fact.unit or bool(said.lead and said.lead == fact.lead))


def _counts(letter: str) -> bool:
    """Return True if a character expresses a number or price but is not a decimal digit: numerals of other scripts,
    circled numbers, currency signs, per cent signs."""
    return (unicodedata.numeric(letter, None) is not None and not letter.isdecimal()) or (
        unicodedata.category(letter) == "Sc" or letter in "%‰‱"
    )
