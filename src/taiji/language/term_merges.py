"""Two tokenizations of a text: general word pieces, and domain terms merged from pieces.

Both are learnt by byte-pair encoding, which repeatedly merges the most frequent adjacent pair (Gage 1994; Sennrich et
al. 2016). Characters are merged into pieces within words. Pieces are then merged into terms within a run of words, so
that "science fiction" becomes one term if it is frequent in the catalogue. The merges of characters may also be taken
from an existing tokenizer whose pieces have vectors (:mod:`taiji.language.token_vectors`).
"""

from __future__ import annotations

import heapq
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Self

import numpy as np
from numpy.typing import NDArray

Pair = tuple[str, str]
Sequences = Mapping[tuple[str, ...], int]
"""Sequences of tokens with their counts."""
WORD = re.compile(r"[^\W_]+|[^\w\s]|_")
START = "\u2581"
"""Mark of the first piece of a word."""
JOINT = "_"
"""Separator of the pieces of a term. In a text it is a word of its own, so no piece of a term contains it."""
PADDING, UNKNOWN, FIRST = 0, 1, 2
"""Ids of padding, of unknown tokens, and of the first learnt token."""


def learn_merges(sequences: Sequences, most: int, least: int = 2, joint: str = "") -> tuple[Pair, ...]:
    """Return merges of adjacent tokens. Each step merges the most frequent pair; ties go to the pair that is first in
    lexicographic order.

    Args:
        sequences: token sequences with counts.
        most: largest number of merges.
        least: smallest number of occurrences of a merged pair.
        joint: separator within the merged token.
    """
    texts = [(list(tokens), count) for tokens, count in sequences.items()]
    counts: Counter[Pair] = Counter()
    where: defaultdict[Pair, set[int]] = defaultdict(set)
    for number, (tokens, count) in enumerate(texts):
        for pair in pairwise(tokens):
            counts[pair] += count
            where[pair].add(number)
    heap = [(-count, pair) for pair, count in counts.items()]
    heapq.heapify(heap)
    merges: list[Pair] = []
    while heap and len(merges) < most:
        negative, pair = heapq.heappop(heap)
        if -negative != counts[pair]:  # an outdated entry, whose count has changed since
            continue
        if counts[pair] < least:
            break
        merges.append(pair)
        changed: set[Pair] = set()
        for number in where.pop(pair):
            tokens, count = texts[number]
            after = merged(tokens, pair, joint)
            for old in pairwise(tokens):
                counts[old] -= count
                changed.add(old)
            for new in pairwise(after):
                counts[new] += count
                where[new].add(number)
                changed.add(new)
            texts[number] = (after, count)
        for other in sorted(changed):
            if counts[other] > 0:
                heapq.heappush(heap, (-counts[other], other))
    return tuple(merges)


def merged(tokens: Sequence[str], pair: Pair, joint: str = "") -> list[str]:
    """Return tokens in which a pair is merged wherever it occurs, from left to right."""
    out, at = [], 0
    while at < len(tokens):
        if at + 1 < len(tokens) and (tokens[at], tokens[at + 1]) == pair:
            out.append(joint.join(pair))
            at += 2
        else:
            out.append(tokens[at])
            at += 1
    return out


def apply_merges(tokens: Sequence[str], ranks: Mapping[Pair, int], joint: str = "") -> tuple[list[str], list[int]]:
    """Return the merged tokens and, for each given token, the position of the merged token that covers it.

    Args:
        tokens: tokens of one sequence.
        ranks: position of each merge in the order of learning; lower positions are applied first.
        joint: as in :func:`learn_merges`.
    """
    out, lengths = list(tokens), [1] * len(tokens)
    while True:
        known = [(ranks[pair], at) for at, pair in enumerate(pairwise(out)) if pair in ranks]
        if not known:
            break
        rank = min(known)[0]
        next_out: list[str] = []
        next_lengths: list[int] = []
        at = 0
        while at < len(out):
            both = at + 1 < len(out) and ranks.get((out[at], out[at + 1])) == rank
            next_out.append(joint.join(out[at : at + 2]) if both else out[at])
            next_lengths.append(sum(lengths[at : at + 2]) if both else lengths[at])
            at += 2 if both else 1
        out, lengths = next_out, next_lengths
    return out, [place for place, length in enumerate(lengths) for _ in range(length)]


@dataclass(frozen=True)
class Tokens:
    """One text in both tokenizations.

    Attributes:
        general: pieces (T,).
        spans: (T,) character range [start, end) of each piece.
        domain: terms (S,), S ≤ T.
        term_of: (T,) span map: position of the term that covers each piece, ascending without gaps.
    """

    general: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]
    domain: tuple[str, ...]
    term_of: tuple[int, ...]


@dataclass(frozen=True)
class TwoTokenizers:
    """Merges and vocabularies learnt from the texts of a catalogue.

    Attributes:
        pieces: merges of characters.
        terms: merges of pieces.
        general, domain: vocabularies of pieces and of terms, in the order of their ids.
        apart: True if the merges of characters come from a language model's tokenizer. In that case letters keep their
            case, only words at the start of the text or after white space get the start mark, and the mark is merged as
            a separate character.
    """

    pieces: tuple[Pair, ...]
    terms: tuple[Pair, ...]
    general: tuple[str, ...]
    domain: tuple[str, ...]
    apart: bool = False

    @classmethod
    def learn(
        cls, texts: Sequence[str], pieces: int, terms: int, least: int = 2, known: Sequence[Pair] | None = None
    ) -> Self:
        """Learn merges and vocabularies from texts.

        Args:
            texts: texts; a repeated text counts as often as it occurs.
            pieces, terms: largest numbers of merges of characters and of merges of pieces.
            least: smallest number of occurrences of a merged pair.
            known: merges of characters of an existing tokenizer, in order. They replace the learnt ones, and ``pieces``
                is ignored. Merges that the texts do not use are left out.
        """
        apart = known is not None
        words = Counter(word for text in texts for word, _ in _words_of(text, apart))
        merges = learn_merges(words, pieces, least) if known is None else _used(words, known)
        found = cls(merges, (), (), (), apart)
        stretches = Counter(stretch for text in texts for stretch in found._stretches(text))
        found = cls(merges, learn_merges(stretches, terms, least, JOINT), (), (), apart)
        spoken = [found.tokens(text) for text in dict.fromkeys(texts)]
        general = {piece for one in spoken for piece in one.general} | {c for word in words for c in word}
        domain = {term for one in spoken for term in one.domain} | general
        return cls(merges, found.terms, tuple(sorted(general)), tuple(sorted(domain)), apart)

    def tokens(self, text: str) -> Tokens:
        """Return the pieces and terms of a text. Every non-space character is in exactly one piece, and every piece in
        exactly one term."""
        general: list[str] = []
        spans: list[tuple[int, int]] = []
        for word, at in _words_of(text, self.apart):
            found, covering = self._pieces_of(word)
            ends = [covering.count(place) for place in range(len(found))]
            for piece, length in zip(found, ends):
                general.append(piece)
                spans.append((at, at + length))
                at += length
        domain: list[str] = []
        term_of: list[int] = []
        for start, end in _stretch_bounds(general):
            terms, covering = apply_merges(general[start:end], self._term_ranks, JOINT)
            term_of += [len(domain) + place for place in covering]
            domain += terms
        return Tokens(tuple(general), tuple(spans), tuple(domain), tuple(term_of))

    def numbers(self, text: str, length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the ids of the first ``length`` pieces and of the terms that cover these pieces, each (length,),
        padded with 0."""
        found = self.tokens(text)
        out = np.zeros((2, length), dtype=np.int64)
        for at, (piece, place) in enumerate(zip(found.general[:length], found.term_of)):
            out[0, at] = self._general_numbers.get(piece, UNKNOWN)
            out[1, at] = self._domain_numbers.get(found.domain[place], UNKNOWN)
        return out[0], out[1]

    @cached_property
    def _piece_ranks(self) -> dict[Pair, int]:
        return {pair: rank for rank, pair in enumerate(self.pieces)}

    @cached_property
    def _term_ranks(self) -> dict[Pair, int]:
        return {pair: rank for rank, pair in enumerate(self.terms)}

    @cached_property
    def _general_numbers(self) -> dict[str, int]:
        return {token: FIRST + place for place, token in enumerate(self.general)}

    @cached_property
    def _domain_numbers(self) -> dict[str, int]:
        return {token: FIRST + place for place, token in enumerate(self.domain)}

    @cached_property
    def _words(self) -> dict[tuple[str, ...], tuple[list[str], list[int]]]:
        return {}

    def _pieces_of(self, word: tuple[str, ...]) -> tuple[list[str], list[int]]:
        """Return the pieces of a word and, for each character, the position of its piece. Results are cached."""
        known = self._words
        if word not in known:
            merge = _merged_apart if self.apart else apply_merges
            known[word] = merge(word, self._piece_ranks)
        return known[word]

    def _stretches(self, text: str) -> list[tuple[str, ...]]:
        general = [piece for word, _ in _words_of(text, self.apart) for piece in self._pieces_of(word)[0]]
        return [tuple(general[start:end]) for start, end in _stretch_bounds(general)]


def characters(word: str) -> tuple[str, ...]:
    """Return the characters of a word in lower case, one token per character; a first letter or digit is prefixed with
    :data:`START`."""
    small = [character.lower() if len(character.lower()) == 1 else character for character in word]
    return (START + small[0], *small[1:]) if word[0].isalnum() else tuple(small)


def _words_of(text: str, apart: bool) -> Iterator[tuple[tuple[str, ...], int]]:
    """Yield the characters of each word and its start position; see :class:`TwoTokenizers` for ``apart``."""
    for word in WORD.finditer(text):
        at, said = word.start(), word.group()
        if apart:
            mark = START if not at or text[at - 1].isspace() else ""
            yield (mark + said[0], *said[1:]), at
        else:
            yield characters(said), at


def _started(word: Sequence[str]) -> tuple[str, ...]:
    """Return the characters of a word, with the mark of its start as a separate character."""
    return (START, word[0][len(START) :], *word[1:]) if len(word[0]) > 1 else tuple(word)


def _merged_apart(word: Sequence[str], ranks: Mapping[Pair, int]) -> tuple[list[str], list[int]]:
    """Return the pieces of a word and the position of each character's piece, for merges that treat the mark of a
    word's start as a separate character.

    A mark that is not merged is joined to the piece after it.
    """
    units = _started(word)
    pieces, covering = apply_merges(units, ranks)
    if len(units) > len(word):
        covering = covering[1:]
        if pieces[0] == START:
            pieces, covering = [START + pieces[1], *pieces[2:]], [place - 1 for place in covering]
    return pieces, covering


def _used(words: Iterable[tuple[str, ...]], merges: Sequence[Pair]) -> tuple[Pair, ...]:
    """Return the tokenizer's merges that at least one word needs, in the tokenizer's order."""
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    used: set[int] = set()
    for word in words:
        units = list(_started(word))
        while known := [ranks[pair] for pair in pairwise(units) if pair in ranks]:
            used.add(min(known))
            units = merged(units, merges[min(known)])
    return tuple(merges[rank] for rank in sorted(used))


def _stretch_bounds(general: Sequence[str]) -> list[tuple[int, int]]:
    """Return the bounds of runs of words. Each punctuation mark is a run of its own, and terms do not cross it."""
    bounds: list[tuple[int, int]] = []
    start = 0
    for at, piece in enumerate(general):
        if not piece.removeprefix(START)[:1].isalnum():
            if at > start:
                bounds.append((start, at))
            bounds.append((at, at + 1))
            start = at + 1
    if len(general) > start:
        bounds.append((start, len(general)))
    return bounds
