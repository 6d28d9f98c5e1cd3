"""Features of a text's style that do not depend on its topic: punctuation, forms of address, length."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
STYLE_FEATURES = (
    "question",
    "exclamation",
    "ellipsis",
    "commas",
    "sentences",
    "capitals",
    "digits",
    "you",
    "word_length",
)
"""Names of the columns of :func:`style_features`."""
MOST_PHRASES = 400
"""Largest number of phrases used as features."""
PHRASE_GROUPS, PHRASE_SHARE = 4, 0.1
"""Smallest number of groups of texts (such as items) that must share a phrase, as an absolute number and as a share of
all groups. The larger of the two numbers applies."""
_WORD = re.compile(r"[^\W\d_]+")
_YOU = frozenset(("you", "your", "yours", "yourself"))


def style_features(texts: Sequence[str]) -> Array:
    """Return the :data:`STYLE_FEATURES` (N, 9) of texts, each as a count or as a mean per word. No feature measures the
    length of the text directly."""
    rows = []
    for text in texts:
        words = _WORD.findall(text)
        count = max(len(words), 1)
        rows.append(
            (
                text.count("?"),
                text.count("!"),
                text.count("…") + text.count("..."),
                text.count(",") / count,
                len(re.findall(r"[.!?…]+", text)) / count,
                sum(word[0].isupper() for word in words) / count,
                sum(letter.isdigit() for letter in text) / count,
                sum(word.casefold() in _YOU for word in words),
                sum(map(len, words)) / count,
            )
        )
    return np.array(rows, dtype=np.float64).reshape(len(texts), len(STYLE_FEATURES))


def length_features(texts: Sequence[str]) -> Array:
    """Return length features (N, 2) of texts: log(1 + number of words), and the square of this logarithm."""
    count = np.log1p([len(text.split()) for text in texts])
    return np.stack([count, count**2], axis=1)


def shared_phrases(texts: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Return the words and word pairs that occur in the texts of many groups, most widespread phrase first.

    Args:
        texts: pairs of a text and its group, such as the item that it is about. Phrases that occur in only a few groups
            are left out, because they tend to reflect a topic rather than a style.
    """
    groups: dict[str, set[str]] = {}
    for text, group in texts:
        groups.setdefault(group, set()).update(_phrases(text))
    counts = Counter(phrase for said in groups.values() for phrase in said)
    least = max(PHRASE_GROUPS, PHRASE_SHARE * len(groups))
    kept = sorted((phrase for phrase, count in counts.items() if count >= least), key=lambda p: (-counts[p], p))
    return tuple(kept[:MOST_PHRASES])


def phrase_features(texts: Sequence[str], phrases: Sequence[str]) -> Array:
    """Return an array (N, number of phrases): 1 if the text contains the phrase, else 0."""
    places = {phrase: place for place, phrase in enumerate(phrases)}
    found = np.zeros((len(texts), len(phrases)))
    for row, text in enumerate(texts):
        found[row, [places[phrase] for phrase in _phrases(text) if phrase in places]] = 1.0
    return found


def _phrases(text: str) -> set[str]:
    words = [word.casefold() for word in _WORD.findall(text)]
    return {*words, *(f"{first} {second}" for first, second in itertools.pairwise(words))}
