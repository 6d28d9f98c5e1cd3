"""Checks of a copy against its evidence: it must not name, count or claim what the evidence does not contain.

There is no list of all names, so every word that is not a lower-case everyday word is treated as a name. The words of a
name must occur next to each other in one fact of the evidence. A number must occur in the catalogue. Comments support a
word only if several different comments contain it. A false alarm costs only one candidate.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from taiji.copywriting.copy_numbers import CatalogueNumbers
from taiji.copywriting.evidence import Evidence
from taiji.copywriting.settings import CopyLimits
from taiji.copywriting.untrusted_text import LINK, cleaned
from taiji.core.errors import ConfigError

REASONS = ("empty", "refusal", "link", "length", "forbidden", "number", "name", "word", "unrelated", "duplicate")
"""Reasons for which a copy is rejected."""
ENGLISH = Path(__file__).parent / "words" / "english.txt"
"""Everyday words, without names and numbers. They occur in lower case in at least ten reviews of
womens-clothing-reviews and are a single token of WordLlama. Some words that announcements use ("new", "today") were
added by hand."""
FUNCTION = ENGLISH.with_name("english_function.txt")
"""Function words, which say nothing about the topic of a text."""
COUNTING = ENGLISH.with_name("english_numbers.txt")
"""Number words ("two", "dozen"). A copy may use one only if the catalogue contains it; comments do not suffice."""
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_TOKEN = re.compile(r"(?P<number>\d[\w.,]*)|(?P<word>[^\W\d_]+(?:['’][^\W\d_]+)*)|(?P<break>[^\w\s'’-]+)")
_ONLY_WORDS = re.compile(r"(?:[^\W\d_]|[\s'’-])*")
_ENDING = re.compile(r"(?:n['’]t|['’](?:s|ll|re|ve|d|m|t))$")
_DOTTED = re.compile(r"(?<![^\W_])[^\W_]{2,}(?:\.[^\W\d_]{2,})+")
_STARTS = frozenset(".!?:…\n")
_REFUSAL = re.compile(
    r"\b(?:as an ai|language model|i(?: am|['’]m) sorry|i (?:cannot|can['’]t|am unable)|here (?:is|are) (?:a|the|your|some)\b.{0,30}\bcop(?:y|ies))\b",
    re.IGNORECASE,
)


class CopyChecks:
    """Checks of copies against their evidence.

    Args:
        limits: lengths, forbidden words, required support by comments, and everyday words.
    """

    def __init__(self, limits: CopyLimits) -> None:
        self.limits = limits
        written = everyday_words(limits.words)
        self._nouns = {word for word in written if word[0].isupper()}
        words = {word.casefold() for word in written}
        self._everyday = words | {folded(word) for word in words}
        self._last: tuple[Evidence, _Ground] | None = None
        self._forbidden = [_Forbidden(phrase) for phrase in limits.forbidden]

    def reasons(self, text: str, evidence: Evidence) -> list[str]:
        """Return the reasons to reject a copy for an item: any of :data:`REASONS` except ``duplicate``.

        The list is empty if the copy may be used.
        """
        plain = cleaned(text)
        if not plain:
            return ["empty"]
        rest = without_title(plain, evidence.title)
        ground = self._ground(evidence)
        said = f" {' '.join(_folded_words(plain))} "
        letters = plain.casefold()
        found = {
            "refusal": bool(_REFUSAL.search(plain)),
            "link": self._addresses(rest, evidence),
            "length": not self.limits.shortest <= len(plain) <= self.limits.longest,
            "forbidden": any(phrase.occurs(letters, said) for phrase in self._forbidden),
            "number": ground.numbers.faults(rest),
            "name": any(map(_is_letter_sign, plain)) or any(not ground.holds(name) for name in self.names(plain)),
            "word": any(not ground.holds([word]) for word in self._unknown(plain)),
            "unrelated": not _telling(plain) & ground.words and (rest == plain or " " not in evidence.title),
        }
        return [reason for reason in REASONS if found.get(reason)]

    def _ground(self, evidence: Evidence) -> _Ground:
        """Return the phrases and numbers that the evidence supports.

        Candidates of one item are checked in succession, so the last result is cached.
        """
        if self._last is None or self._last[0] is not evidence:
            self._last = evidence, _Ground(evidence, self.limits.comment_support)
        return self._last[1]

    def names(self, text: str) -> list[list[str]]:
        """Return the named entities of a text, which are runs of capitalised words.

        An everyday word at the beginning of a sentence is not a name, and neither is a word that is capitalised in the
        file of everyday words (a noun in German).
        """
        runs: list[list[str]] = [[]]
        for word, starts, breaks in _words(text):
            everyday = word == "I" or word in self._nouns or (starts and self._is_everyday(word))
            named = word[0].isupper() and not everyday
            if breaks or not named:
                runs.append([])
            if named:
                runs[-1].append(word)
        return [run for run in runs if run]

    def _addresses(self, text: str, evidence: Evidence) -> bool:
        """Return True if a text contains an address or markup characters. A dot inside a word counts as an address
        unless the catalogue has the same word ("Dr.Martens")."""
        known = " ".join(fact.text for fact in evidence.catalogue).casefold()
        dotted = [found[0].casefold() for found in _DOTTED.finditer(text)]
        return bool(LINK.search(text) or set(text) & set("@#<>{}[]|\\")) or any(word not in known for word in dotted)

    def _unknown(self, text: str) -> Iterator[str]:
        """Yield the lower-case words that are not everyday words, which may be names in disguise."""
        yield from (word for word, _, _ in _words(text) if not word[0].isupper() and not self._is_everyday(word))

    def _is_everyday(self, word: str) -> bool:
        plain = _ENDING.sub("", word.casefold())
        return plain in self._everyday or folded(plain) in self._everyday


class _Ground:
    """Phrases and numbers that the evidence of an item supports."""

    def __init__(self, evidence: Evidence, support: int) -> None:
        self.support = support
        self.catalogue = [f" {' '.join(_folded_words(fact.text))} " for fact in evidence.catalogue]
        self.comments = [f" {' '.join(_folded_words(fact.text))} " for fact in evidence.comments]
        self.numbers = CatalogueNumbers(
            [fact.text for fact in evidence.catalogue], everyday_words(FUNCTION), everyday_words(COUNTING)
        )
        self.words = {word for fact in evidence.facts for word in _telling(fact.text)}

    def holds(self, words: Sequence[str]) -> bool:
        """Return True if a fact of the catalogue, or at least ``support`` comments, contain these words next to each
        other.
        """
        phrase = f" {' '.join(_folded_words(' '.join(words)))} "
        return any(phrase in fact for fact in self.catalogue) or (
            sum(phrase in fact for fact in self.comments) >= self.support
        )


class _Forbidden:
    """Phrase that a copy must not contain.

    A phrase of words matches in any inflection that :func:`folded` removes. A phrase with digits or signs, such as
    "100%" or "No. 1", must occur as it is written, in upper or lower case and not as a part of a word or number.
    """

    def __init__(self, phrase: str) -> None:
        self._words = f" {' '.join(_folded_words(phrase))} "
        self._exact: re.Pattern[str] | None = None
        if not _ONLY_WORDS.fullmatch(phrase):
            written = r"\s+".join(map(re.escape, cleaned(phrase).casefold().split()))
            self._exact = re.compile(rf"(?<!\w){written}(?!\w)" if written else r"(?!)")

    def occurs(self, text: str, words: str) -> bool:
        """Return True if the phrase occurs in a copy.

        Args:
            text: the copy in lower case.
            words: the folded words of the same copy, with a space before and after each.
        """
        return self._words in words if self._exact is None else bool(self._exact.search(text))


def without_title(text: str, title: str) -> str:
    """Return a text in which a dot replaces each exact occurrence of the title, so that numbers and signs in the title
    are not checked.

    A title of one or two characters is not replaced.
    """
    return re.sub(rf"(?<!\w){re.escape(title)}(?!\w)", "·", text) if len(title) > 2 else text


def _is_letter_sign(letter: str) -> bool:
    """Return True if a character is a symbol that shows a letter: a circled or squared letter, or a regional
    indicator."""
    return unicodedata.category(letter)[0] == "S" and "LETTER" in unicodedata.name(letter, "")


def folded(word: str) -> str:
    """Return a word in lower case, without an ending after an apostrophe and without a plural s."""
    plain = _ENDING.sub("", word.casefold())
    return plain[:-1] if len(plain) > 3 and plain.endswith("s") and not plain.endswith("ss") else plain


def near_duplicates(texts: Sequence[str], share: float, title: str = "") -> list[bool]:
    """Return for each text True if its Jaccard similarity to an earlier kept text is at least ``share``; words of the
    item's title are ignored."""
    kept: list[set[str]] = []
    found, about = [], set(_folded_words(title))
    for text in texts:
        words = set(_folded_words(text)) - about
        again = any(len(words & other) >= share * len(words | other) for other in kept)
        found.append(again)
        if not again:
            kept.append(words)
    return found


@lru_cache(maxsize=8)
def everyday_words(path: Path | None) -> frozenset[str]:
    """Return the words of a file, as they are spelt there; by default, the words that need no evidence.

    Args:
        path: file with one word per line; None for :data:`ENGLISH`.

    Raises:
        ConfigError: the file cannot be read.
    """
    try:
        return frozenset((path or ENGLISH).expanduser().read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            "The file of everyday words cannot be read.", where=f"copywriting.limits.words: {path}",
            expected="a text file in UTF-8 with one word per line", found=str(error),
        ) from error  # fmt: skip


def _folded_words(text: str) -> list[str]:
    return [folded(word) for word in _WORD.findall(cleaned(text))]


def _telling(text: str) -> set[str]:
    """Return the folded words that tell what a text is about: at least three letters, and no function words."""
    return {word for word in _folded_words(text) if len(word) >= 3 and word not in everyday_words(FUNCTION)}


def _words(text: str) -> Iterator[tuple[str, bool, bool]]:
    """Yield each word with two flags: True if the word begins a sentence, and True if a number or a sign other than a
    hyphen or an apostrophe separates it from the previous word."""
    starts, breaks = True, True
    for token in _TOKEN.finditer(text):
        if token["word"]:
            yield token["word"], starts, breaks
            starts = breaks = False
        elif token["number"]:
            starts, breaks = False, True
        else:
            breaks = True
            starts = starts or bool(set(token["break"]) & _STARTS)
