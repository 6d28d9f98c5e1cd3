"""Checks of vector coders."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taiji.core.errors import InputError
from taiji.models.codes.coder import Coder

Array = NDArray[Any]


def check_vector_coder(coder: Coder, vectors: Array) -> None:
    """Check the contract of :class:`taiji.models.codes.coder.Coder`.

    Codes are integers below their level's size. They are the same in repeated calls, for each vector alone, and after
    saving and loading. Loading and saving again changes neither the version nor a byte of the files. A code can be
    decoded from any number of its first levels, and codes that agree in these levels decode to the same vector. Invalid
    input is rejected.

    Args:
        coder: a fitted coder.
        vectors: (N, d) vectors of the coder's dimension d, N >= 2.
    """
    sizes, codes = coder.sizes, coder.encode(vectors)
    assert codes.shape == (len(vectors), len(sizes)), f"codes of shape {codes.shape}, expected ({len(vectors)}, L)"
    assert codes.dtype == np.int64, f"codes of type {codes.dtype}"
    assert ((codes >= 0) & (codes < np.asarray(sizes))).all(), f"codes outside {sizes}"
    np.testing.assert_array_equal(coder.encode(vectors), codes, "codes changed between two calls")
    np.testing.assert_array_equal(coder.encode(vectors[::-1])[::-1], codes, "a vector's codes depend on the others")
    for row in range(min(len(vectors), 20)):
        np.testing.assert_array_equal(
            coder.encode(vectors[row : row + 1])[0], codes[row], f"vector {row} alone got different codes"
        )
    assert coder.encode(vectors[:0]).shape == (0, len(sizes)), "an empty batch gives codes of the wrong shape"
    for levels in range(len(sizes) + 1):
        decoded = coder.decode(codes[:, :levels])
        assert decoded.shape == vectors.shape and np.isfinite(decoded).all(), f"{levels} levels do not decode"
        _, first, group = np.unique(codes[:, :levels], axis=0, return_index=True, return_inverse=True)
        same = decoded[first][group.ravel()] if levels else np.broadcast_to(decoded[0], decoded.shape)
        np.testing.assert_array_equal(decoded, same, "the same codes decode to different vectors")
    _check_rejected(coder, codes, vectors)
    _check_loaded(coder, codes, vectors)


def _check_rejected(coder: Coder, codes: Array, vectors: Array) -> None:
    too_large = codes.copy()
    too_large[0, -1] = coder.sizes[-1]
    for call, argument, what in [
        (coder.encode, np.zeros((2, coder.dimension + 1)), "vectors of the wrong width"),
        (coder.encode, np.full((1, coder.dimension), np.nan), "a vector that is not finite"),
        (coder.decode, too_large, "a code that its level does not have"),
        (coder.decode, -1 - codes, "negative codes"),
        (coder.decode, np.concatenate([codes, codes], axis=1), "too many levels"),
    ]:
        try:
            call(argument)
        except InputError:
            continue
        raise AssertionError(f"{what}: accepted")


def _check_loaded(coder: Coder, codes: Array, vectors: Array) -> None:
    with tempfile.TemporaryDirectory() as name:
        first, second = Path(name) / "first", Path(name) / "second"
        coder.save(first)
        loaded = Coder.load(first)
        assert type(loaded) is type(coder), f"a {type(coder).__name__} came back as a {type(loaded).__name__}"
        assert loaded.version == coder.version, f"version {coder.version} came back as {loaded.version}"
        np.testing.assert_array_equal(loaded.encode(vectors), codes, "codes differ after loading")
        np.testing.assert_array_equal(loaded.decode(codes), coder.decode(codes), "vectors differ after loading")
        type(coder).load(first).save(second)
        for path in sorted(p for p in first.rglob("*") if p.is_file()):
            twin = second / path.relative_to(first)
            assert twin.exists() and twin.read_bytes() == path.read_bytes(), f"{path.name} differs after saving again"
