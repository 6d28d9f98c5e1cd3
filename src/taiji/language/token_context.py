"""Token vectors from the co-occurrences of tokens in the texts of a catalogue. The vectors reflect the meaning of words
within this catalogue.

An embedder was trained on other texts. If "Turbo" often occurs together with "Garage" and "Rally" in a catalogue, these
words name the same kind of item there, even if they mean something else elsewhere. The vectors are the principal axes
of the log-ratios of observed to expected co-occurrences (Levy & Goldberg 2014),

    r_ij = log [(c_ij + 1) / (c_i c_j / c + 1)],

where c_ij is the number of texts with tokens i and j in different words, c_i = Σ_j c_ij and c = Σ_i c_i. The added ones
keep the log-ratios of rare tokens near 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
MOST = 2048
"""Only this many tokens, those with the most co-occurrences, have a nonzero vector."""


def co_occurrences(texts: Sequence[Sequence[Sequence[int]]], tokens: int) -> Array:
    """Return, for each pair of tokens, the number of texts that have them in different words, (tokens, tokens),
    symmetric, 0 on the diagonal.

    Args:
        texts: token ids, by text and word; negative ids are ignored.
        tokens: size of the vocabulary.
    """
    counts = np.zeros((tokens, tokens))
    for words in texts:
        word_of: dict[int, set[int]] = {}
        for place, word in enumerate(words):
            for token in word:
                if token >= 0:
                    word_of.setdefault(token, set()).add(place)
        there = np.fromiter(word_of, dtype=np.int64)
        counts[there[:, None], there] += 1
        for place, word in enumerate(words):  # pairs that this text has only within this word do not count
            alone = [token for token in set(word) if token >= 0 and word_of[token] == {place}]
            if len(alone) > 1:
                counts[np.array(alone)[:, None], alone] -= 1
    np.fill_diagonal(counts, 0)
    return counts


def context_vectors(counts: Array, width: int) -> Array:
    """Return vectors (tokens, width) whose inner products approximate the log-ratios of co-occurrences, largest axis
    first.

    If there are fewer than ``width`` axes, the remaining columns are 0. The sign of each axis is chosen so that its
    entry of largest magnitude is positive.

    Args:
        counts: (tokens, tokens), from :func:`co_occurrences`.
        width: number of axes.
    """
    vectors = np.zeros((len(counts), width), dtype=np.float32)
    totals = counts.sum(axis=1)
    whole = totals.sum()
    known = np.sort(np.lexsort((np.arange(len(totals)), -totals))[:MOST])
    known = known[totals[known] > 0]
    if not len(known):
        return vectors
    counts, totals = counts[np.ix_(known, known)], totals[known]
    ratios = np.log((counts + 1) / (np.outer(totals, totals) / whole + 1))
    np.fill_diagonal(ratios, 0)
    values, axes = np.linalg.eigh(ratios)
    values, axes = values[::-1][:width], axes[:, ::-1][:, :width]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    vectors[known, : axes.shape[1]] = axes * np.sqrt(np.maximum(values, 0.0))
    return vectors
