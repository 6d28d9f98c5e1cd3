"""An embedder's vectors for the tokens of both tokenizations, with which a text encoder is initialised.

A general token has the embedder's own vector; a domain term has the mean over its pieces. The pieces are made by the embedder's tokenizer, so the mean over
the pieces of a text is the embedder's vector of the text, with two differences: no piece crosses punctuation, and a space belongs to the digit or sign
after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taiji.language.embed import WordLlamaEmbedder
from taiji.language.term_merges import FIRST, JOINT, TwoTokenizers

Array = NDArray[Any]
AXES = 128
"""Number of principal axes of the texts that are kept; a wider encoder has 0 for the others."""
LEAST = 0.01
"""Smallest standard deviation by which entries of unit vectors are divided: a catalogue of one text has 0, and other texts would become huge."""


def started_tokenizers(texts: Sequence[str], terms: int) -> tuple[TwoTokenizers, dict[str, Array]]:
    """Return tokenizers with WordLlama's pieces and terms learnt from texts, and the initial vectors.

    Args:
        texts: texts, each of which counts once.
        terms: largest number of merges of pieces.

    Returns:
        The tokenizers; and ``general`` (G, D), ``centre`` (D,), ``scale`` (D,) and ``axes`` (k, D), float32, as in
        :class:`taiji.nn.semantic_encoder.TokenStart` but without the rows of the empty and the unknown token.

    Raises:
        ResourceError: the package is not installed.
    """
    embedder = WordLlamaEmbedder()
    tokenizers = TwoTokenizers.learn(texts, 0, terms, known=embedder.merges())
    general = embedder.piece_vectors(tokenizers.general)
    found = text_vectors(tokenizers, general, texts)
    centre, scale = found.mean(axis=0), np.maximum(found.std(axis=0), LEAST)
    axes = principal_axes((found - centre) / scale)
    return tokenizers, {"general": general, "centre": centre, "scale": scale, "axes": axes}


def principal_axes(x: Array, most: int = AXES) -> Array:
    """Return the first principal axes (k, D) of centred rows (n, D), float32, scaled so that rows have mean square 1 along the first."""
    variances, directions = np.linalg.eigh(x.T.astype(np.float64) @ x / max(1, len(x)))
    variances, directions = variances[::-1][:most], directions[:, ::-1].T[:most]
    there = variances > 1e-6 * max(variances[0], 1e-12)
    return (directions[there] / np.sqrt(max(variances[0], 1e-12))).astype(np.float32)  # type: ignore[no-any-return]


def text_vectors(tokenizers: TwoTokenizers, general: Array, texts: Sequence[str]) -> Array:
    """Return the mean over the vectors of each text's general tokens, scaled to length 1, (N, D); 0 for a blank text."""
    number = {token: place for place, token in enumerate(tokenizers.general)}
    sums = np.zeros((len(texts), general.shape[1]), dtype=np.float32)
    for place, text in enumerate(texts):
        sums[place] = general[[number[token] for token in tokenizers.tokens(text).general if token in number]].sum(
            axis=0
        )
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.divide(sums, lengths, out=np.zeros_like(sums), where=lengths > 0)


def numbered(vectors: Array) -> Array:
    """Return vectors (n, D) indexed by the numbers of the tokens, (FIRST + n, D)."""
    return np.concatenate([np.zeros((FIRST, vectors.shape[1]), vectors.dtype), vectors])


def term_vectors(tokenizers: TwoTokenizers, general: Array) -> Array:
    """Return the vectors of the domain terms, (M, D), each the mean over its pieces.

    Args:
        tokenizers: tokenizers with both vocabularies.
        general: (G, D).
    """
    number = {token: place for place, token in enumerate(tokenizers.general)}
    parts = [[number[t]] if t in number else [number[piece] for piece in t.split(JOINT)] for t in tokenizers.domain]
    return np.array([general[places].mean(axis=0) for places in parts], dtype=np.float32).reshape(-1, general.shape[1])
