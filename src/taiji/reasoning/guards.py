"""Lexical guards: detect rationales that name the item they are supposed to predict.

A rationale names a title if it contains the title exactly, with a different spelling, with other words in between, or
with its words in any order, or if it contains three consecutive words of the title. A title in the history that the
student sees does not count. In scripts without spaces between words (Chinese, Japanese), and in Korean, each character
counts as a word, and five consecutive ones are needed. Category levels are judged separately. Naming a first or second
level is legitimate inference. Naming a third or deeper level that does not occur in the history is suspicious.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

MASK = "something"
"""Text that replaces a redacted mention."""
FUZZY = 0.85
"""Minimum character similarity (difflib ratio) at which a stretch of the rationale counts as naming the title."""
FUZZY_WORD = 0.75
"""Minimum similarity between two single words."""
RECALL = 0.75
"""Minimum share of the title's words that must occur in the rationale in order, within a stretch of at most twice the
title's length."""
GRAM, CHARACTERS = 3, 5
"""Length of a run of words, and of a run of characters, that counts as naming the title."""
DISTINCT = 4
"""Smallest number of letters with which a single title word is redacted even if the title does not count as named.
Words that occur in the history are never redacted in this way."""
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*", re.UNICODE)
_UNSPACED = "\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003134f"
"""Characters of Chinese, Japanese and Korean."""
_CHARACTER = re.compile(f"[{_UNSPACED}]")
_TOKEN = re.compile(rf"[{_UNSPACED}]|(?:(?![{_UNSPACED}])[^\W_])+(?:['’](?:(?![{_UNSPACED}])[^\W_])+)*")
_FORBIDDEN = re.compile(
    r"ground[ -]truth|actually (?:bought|purchased|watched|chose|chosen|read)|(?:target|true|correct|given|actual) (?:next )?(?:item|product|film|movie|book|purchase|answer|choice)"
    r"|turned out to be|as (?:we|i) (?:now )?know|(?:was|is) (?:told|given) that|the answer is|next (?:new )?(?:purchase|film|choice|item) (?:is|was)\b",
    re.IGNORECASE,
)
_FORBIDDEN_SETS = re.compile(
    r"(?:target|true|correct|given|actual) (?:next )?(?:products|movies|purchases|answers|choices)|next (?:new )?(?:purchases|films|choices|items) (?:are|were|include)\b",
    re.IGNORECASE,
)
"""Forbidden phrases about several items that :data:`_FORBIDDEN` does not match."""
_STOP = frozenset(
    word
    for line in (
        "a an and are as at be but by for from has have he her his in into is it its more no not of on one or our she so some than that the their",
        "them there these they this those to too two up was we were what when where which who will with you your item title category price list shows",
    )
    for word in line.split()
)


@dataclass(frozen=True)
class Mentions:
    """Mentions of the target in a rationale.

    Attributes:
        title: ways in which the title is named, out of ``exact``, ``fuzzy``, ``subsequence``, ``words``, ``3-gram``;
            empty if it is not named.
        levels: per level (L1, L2, L3 and deeper), True if the rationale names it but the history does not.
        forbidden: phrases that reveal that the writer knows the answer.
        recall: share of the title's words that occur in the rationale in order (longest common subsequence).
        masked: the rationale, with every mention of the title and of third or deeper levels redacted.
    """

    title: tuple[str, ...]
    levels: tuple[bool, ...]
    forbidden: tuple[str, ...]
    recall: float
    masked: str


def words(text: str) -> list[str]:
    """Return the case-folded words of a text."""
    return [w.casefold() for w in _WORD.findall(text)]


def tokens(text: str) -> list[str]:
    """Return what the guards compare: case-folded words, and single characters of Chinese, Japanese and Korean."""
    return [token.casefold() for token in _TOKEN.findall(text)]


def find_mentions(rationale: str, title: str, levels: Sequence[str], history: str) -> Mentions:
    """Find mentions of the target in a rationale.

    Args:
        rationale: text to search.
        title: title of the target; a year in parentheses is ignored.
        levels: category levels of the target; empty strings where missing.
        history: everything that the student's prompt shows (profile and interactions); its words are not a leak.
    """
    places = [(m.start(), m.end(), m.group().casefold()) for m in _TOKEN.finditer(rationale)]
    said = [p[2] for p in places]
    known = tokens(history)
    name = tokens(re.sub(r"\((?:19|20)\d\d\)", " ", title)) or tokens(title)
    hit = [False] * len(said)  # words of the rationale to redact
    phrases = [tokens(level) for level in [*levels, *[""] * (3 - len(levels))]]
    kinds = _title_kinds(said, name, known, phrases[:2], hit)
    named = []
    for phrase in phrases:
        spots = [] if not phrase or _runs(known, phrase) else _runs(said, phrase)
        named.append(bool(spots))
        if len(named) >= 3:  # inferring a first or second level is not a leak: only deeper levels are redacted
            _mark(hit, spots, len(phrase))
    forbidden = tuple(dict.fromkeys(m.group().casefold() for m in _FORBIDDEN.finditer(rationale)))
    return Mentions(tuple(kinds), tuple(named), forbidden, _recall(said, name), _redact(rationale, places, hit))


def find_set_mentions(rationale: str, items: Sequence[tuple[str, Sequence[str]]], history: str) -> Mentions:
    """Find mentions of several targets in a rationale, by the rules of :func:`find_mentions`.

    Args:
        rationale: text to search.
        items: title and category levels of each target.
        history: everything that the student's prompt shows.

    Returns:
        the union of the findings for all targets, with all mentions redacted.
    """
    found = [find_mentions(rationale, title, levels, history) for title, levels in items]
    if len(found) == 1:
        return found[0]
    masked = rationale
    for (title, levels), mentions in zip(items, found):
        if mentions.masked != rationale:
            masked = find_mentions(masked, title, levels, history).masked
    depth = max(len(mentions.levels) for mentions in found)
    spoken = (m.group().casefold() for m in _FORBIDDEN_SETS.finditer(rationale))
    return Mentions(
        tuple(dict.fromkeys(kind for mentions in found for kind in mentions.title)),
        tuple(any(m.levels[place] for m in found if place < len(m.levels)) for place in range(depth)),
        tuple(dict.fromkeys([*found[0].forbidden, *spoken])),
        max(mentions.recall for mentions in found),
        masked,
    )


def _title_kinds(
    said: list[str], name: list[str], known: list[str], inferred: list[list[str]], hit: list[bool]
) -> list[str]:
    """Return the ways in which the title is named, and mark the words of the rationale that name it.

    A run of three title words that also occurs in the name of the first or second level ("Sour Creams (Milk
    by-Products)") counts as naming that level, not the title, if the level's name is shorter than the title.
    """
    if not name or _runs(known, name):
        return []
    kinds = []
    lacking = set(name) - set(known)
    new = {w for w in lacking - _STOP if len(w) > 2}
    spots = _runs(said, name)
    # A title of one word ("Speed", "Up") counts as named only if the word is neither in the history nor common.
    if spots and (len(name) > 1 or new):
        kinds.append("exact")
        _mark(hit, spots, len(name))
    fuzzy = _fuzzy(said, name, known)
    if fuzzy:
        kinds.append("fuzzy")
        for start, length in fuzzy:
            _mark(hit, [start], length)
    gapped = _gapped(said, name)
    if gapped and (new | {w for w in lacking if _CHARACTER.match(w)}) & {said[i] for i in gapped}:
        kinds.append("subsequence")
        for i in gapped:
            hit[i] = True
    grams = (
        _grams(name)
        - _grams(known)
        - {gram for phrase in inferred if len(phrase) < len(name) for gram in _grams(phrase)}
    )
    runs = [
        (i, size)
        for size in (GRAM, CHARACTERS)
        for i in range(len(said) - size + 1)
        if tuple(said[i : i + size]) in grams and set(said[i : i + size]) - _STOP
    ]
    if runs:
        kinds.append("3-gram")
        for start, size in runs:
            _mark(hit, [start], size)
    spoken = [i for i, w in enumerate(said) if w in new]
    if new and {said[i] for i in spoken} == new and len(new) >= min(2, len(set(name) - _STOP)):
        kinds.append("words")  # all new words of the title, in any order
    for i in spoken:
        hit[i] = hit[i] or bool(kinds) or len(said[i]) >= DISTINCT  # part of a title also reveals the item
    return kinds


def _grams(text: list[str]) -> set[tuple[str, ...]]:
    """Return the runs of three tokens that include a word, and the runs of five single characters."""
    short = {tuple(text[i : i + GRAM]) for i in range(len(text) - GRAM + 1)}
    long = {tuple(text[i : i + CHARACTERS]) for i in range(len(text) - CHARACTERS + 1)}
    only = {gram for gram in short | long if all(_CHARACTER.match(token) for token in gram)}
    return (short - only) | (long & only)


def _joined(said: Sequence[str]) -> str:
    """Join tokens: words with spaces, and characters of Chinese, Japanese and Korean without spaces."""
    return "".join(token if not place or _CHARACTER.match(token) else f" {token}" for place, token in enumerate(said))


def _mark(hit: list[bool], starts: Sequence[int], length: int) -> None:
    for start in starts:
        hit[start : start + length] = [True] * min(length, len(hit) - start)


def _runs(text: list[str], phrase: list[str]) -> list[int]:
    """Return the positions at which ``phrase`` occurs in ``text`` word for word."""
    return [i for i in range(len(text) - len(phrase) + 1) if text[i : i + len(phrase)] == phrase]


def _fuzzy(said: list[str], name: list[str], known: list[str]) -> list[tuple[int, int]]:
    """Return (start, length) of the stretches that resemble the title and contain a title word that the history lacks.

    Misspelt title words count. A stretch that consists only of words from the history does not count, because it may
    name a similar item in the history (a sequel, another size).
    """
    whole, seen = _joined(name), set(known)
    if len(whole) < 5:
        return []
    telling = [word not in seen and any(_alike(word, other, FUZZY_WORD) for other in name) for word in said]
    found = []
    for length in sorted({max(1, len(name) - 1), len(name), len(name) + 1}):
        for start in range(len(said) - length + 1):
            if any(telling[start : start + length]) and _alike(_joined(said[start : start + length]), whole, FUZZY):
                found.append((start, length))
    return found


def _alike(one: str, other: str, bar: float) -> bool:
    matcher = SequenceMatcher(None, one, other, autojunk=False)
    return matcher.real_quick_ratio() >= bar and matcher.quick_ratio() >= bar and matcher.ratio() >= bar


def _gapped(said: list[str], name: list[str]) -> list[int]:
    """Return the positions of the title's words that occur in order within a short stretch.

    The list is empty if they are fewer than the share :data:`RECALL` of the title's words, or only common words.
    """
    if len(name) < 2:
        return []
    reach = 2 * len(name)
    best: list[int] = []
    for start in range(len(said)):
        if said[start] in name:
            positions = _subsequence(said[start : start + reach], name)
            if len(positions) > len(best):
                best = [start + p for p in positions]
    content = {said[i] for i in best} - _STOP
    return best if len(best) >= max(2, RECALL * len(name)) and content else []


def _subsequence(text: Sequence[str], name: Sequence[str]) -> list[int]:
    """Return the positions in ``text`` of a longest common subsequence with ``name``."""
    table = [[0] * (len(name) + 1) for _ in range(len(text) + 1)]
    for i, word in enumerate(text):
        for j, other in enumerate(name):
            table[i + 1][j + 1] = table[i][j] + 1 if word == other else max(table[i][j + 1], table[i + 1][j])
    positions = []
    i, j = len(text), len(name)
    while i and j:
        if text[i - 1] == name[j - 1]:
            positions.append(i - 1)
            i, j = i - 1, j - 1
        elif table[i - 1][j] >= table[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return positions[::-1]


def _recall(said: list[str], name: list[str]) -> float:
    return len(_subsequence(said, name)) / len(name) if name else 0.0


def _redact(text: str, places: list[tuple[int, int, str]], hit: list[bool]) -> str:
    """Replace each run of marked words, with the characters between them, by :data:`MASK`."""
    pieces, end, number = [], 0, 0
    while number < len(places):
        if not hit[number]:
            number += 1
            continue
        last = number
        while last + 1 < len(places) and hit[last + 1]:
            last += 1
        pieces += [text[end : places[number][0]], MASK]
        end, number = places[last][1], last + 1
    return "".join([*pieces, text[end:]])
