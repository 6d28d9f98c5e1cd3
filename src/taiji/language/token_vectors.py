"""Initial vectors of a text encoder: an embedder's vectors for general word pieces, and their means for domain terms.

Pieces and terms are explained in :mod:`taiji.language.term_merges`. A piece has the embedder's vector, and a term has
the mean of its pieces' vectors. The pieces are those of the embedder's tokenizer, except in two cases: no piece crosses
punctuation, and a space is joined to the digit or punctuation mark after it. For texts in which neither case occurs,
the mean of the pieces' vectors, scaled to length 1, is the embedder's vector of the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taiji.language.embed import WordLlamaEmbedder
from taiji.language.term_merges import FIRST, JOINT, START, TwoTokenizers
from taiji.language.token_context import co_occurrences, context_vectors

Array = NDArray[Any]
AXES = 128
"""Largest number of principal axes of the text vectors. In a wider encoder, the remaining columns are 0."""
LEAST = 0.01
"""Lower bound of the standard deviations by which the entries of text vectors are divided. A catalogue with only one
text has standard deviation 0; without the bound, the vectors of other texts would become huge."""


def started_tokenizers(texts: Sequence[str], terms: int, context: int = 0) -> tuple[TwoTokenizers, dict[str, Array]]:
    """Return two tokenizers (pieces from WordLlama, and terms learnt from texts) and the initial vectors.

    Args:
        texts: texts from which the terms and the co-occurrences are learnt. A repeated text counts once for the terms,
            and each time for the co-occurrences.
        terms: largest number of merges of pieces.
        context: number C of principal axes of the tokens' co-occurrences (:mod:`taiji.language.token_context`); 0 for
            none.

    Returns:
        The tokenizers, and float32 arrays by name: ``general`` (G, D), ``centre`` (D + C,), ``scale`` (D + C,),
        ``axes`` (k, D) and, if C > 0, ``context`` (G, C) and ``context_axes`` (c, C), for G pieces and an embedder of
        width D. :class:`taiji.nn.semantic_encoder.TokenStart` explains these arrays; here the rows of padding and of
        unknown tokens are left out.

    Raises:
        ResourceError: ``wordllama`` or ``tokenizers`` is not installed, or a file of ``wordllama`` is missing.
    """
    embedder = WordLlamaEmbedder()
    distinct = list(dict.fromkeys(texts))
    tokenizers = TwoTokenizers.learn(distinct, 0, terms, known=embedder.merges())
    general = embedder.piece_vectors(tokenizers.general)
    found = text_vectors(tokenizers, general, distinct)
    centre, scale = found.mean(axis=0), np.maximum(found.std(axis=0), LEAST)
    start = {"general": general, "axes": principal_axes((found - centre) / scale)}
    if context:
        beside = context_vectors(co_occurrences(numbers_of_words(tokenizers, texts), len(general)), context)
        beside *= np.sqrt(np.square(general).sum() / max(np.square(beside).sum(), 1e-12)).astype(np.float32)
        found = text_vectors(tokenizers, beside, distinct)
        # All columns get the same scale, because they are principal axes whose relative variances must be kept.
        own = np.full(context, max(float(np.sqrt(found.var(axis=0).mean())), LEAST), dtype=np.float32)
        near = found.mean(axis=0)
        start |= {"context": beside, "context_axes": principal_axes((found - near) / own)}
        centre, scale = np.concatenate([centre, near]), np.concatenate([scale, own])
    return tokenizers, start | {"centre": centre, "scale": scale}


def numbers_of_words(tokenizers: TwoTokenizers, texts: Sequence[str]) -> list[list[list[int]]]:
    """Return, for each word of each text, the positions of its pieces in the vocabulary ``general``; −1 for an unknown
    piece."""
    number = {token: place for place, token in enumerate(tokenizers.general)}
    known: dict[str, list[list[int]]] = {}
    for text in dict.fromkeys(texts):
        words: list[list[int]] = []
        for piece in tokenizers.tokens(text).general:
            if not words or piece.startswith(START):
                words.append([])
            words[-1].append(number.get(piece, -1))
        known[text] = words
    return [known[text] for text in texts]


def principal_axes(x: Array, most: int = AXES) -> Array:
    """Return the first principal axes (k, D) float32 of centred rows (n, D), k ≤ ``most``; axes with almost no variance
    are left out.

    All axes have the same length, which is chosen so that the projections of the rows on the first axis have mean
    square 1.
    """
    variances, directions = np.linalg.eigh(x.T.astype(np.float64) @ x / max(1, len(x)))
    variances, directions = variances[::-1][:most], directions[:, ::-1].T[:most]
    there = variances > 1e-6 * max(variances[0], 1e-12)
    return (directions[there] / np.sqrt(max(variances[0], 1e-12))).astype(np.float32)  # type: ignore[no-any-return]


def text_vectors(tokenizers: TwoTokenizers, general: Array, texts: Sequence[str]) -> Array:
    """Return the mean vector of each text's pieces, scaled to length 1, (N, D); zero for a text without known
    pieces."""
    number = {token: place for place, token in enumerate(tokenizers.general)}
    sums = np.zeros((len(texts), general.shape[1]), dtype=np.float32)
    for place, text in enumerate(texts):
        sums[place] = general[[number[token] for token in tokenizers.tokens(text).general if token in number]].sum(
            axis=0
        )
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.divide(sums, lengths, out=np.zeros_like(sums), where=lengths > 0)


def numbered(vectors: Array) -> Array:
    """Prepend :data:`FIRST` zero rows to vectors (n, D), so that token ids index the result, (FIRST + n, D)."""
    return np.concatenate([np.zeros((FIRST, vectors.shape[1]), vectors.dtype), vectors])


def term_vectors(tokenizers: TwoTokenizers, general: Array) -> Array:
    """Return the vectors of the domain terms, (M, D), each of which is the mean over the term's pieces.

    Args:
        tokenizers: tokenizers with both vocabularies.
        general: (G, D) vectors of the pieces.
    """
    number = {token: place for place, token in enumerate(tokenizers.general)}
    parts = [[number[t]] if t in number else [number[piece] for piece in t.split(JOINT)] for t in tokenizers.domain]
    return np.array([general[places].mean(axis=0) for places in parts], dtype=np.float32).reshape(-1, general.shape[1])
