"""Features without an LLM: the mean embedding of the user's last items (a baseline) or of the user's next items (an
upper bound)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from taiji.data import Dataset

Gather = Callable[[np.ndarray, np.ndarray, int], tuple[np.ndarray, np.ndarray]]
"""Function from users (B,), times (B,) and a limit L to items and times, each (B, L)."""


def history_mean(
    dataset: Dataset,
    users: np.ndarray,
    as_ofs: np.ndarray,
    item_vectors: np.ndarray,
    limit: int = 50,
    block: int = 8192,
) -> np.ndarray:
    """Return the mean item embedding of each user's last interactions strictly before a time, normalised to length 1.

    Args:
        dataset: source of the histories.
        users, as_ofs: (N,) dense user ids, and times in microseconds.
        item_vectors: (n_items, d) embedding of each item's text.
        limit: largest number of interactions that are averaged.
        block: number of rows processed at a time.

    Returns:
        Embeddings (N, d) float32, with a row of zeros for a user without history.
    """
    return _mean(dataset.history.before_batch, users, as_ofs, item_vectors, limit, block)


def future_mean(
    dataset: Dataset,
    users: np.ndarray,
    as_ofs: np.ndarray,
    item_vectors: np.ndarray,
    limit: int = 1,
    *,
    new: bool = True,
    block: int = 8192,
) -> np.ndarray:
    """Return the mean item embedding of each user's first interactions at or after a time, which is the answer of an
    oracle.

    The function uses the future on purpose, to compute an upper bound. A ranker that gains nothing from these
    embeddings would gain nothing from any answer at these times. If a ranker gains from them, this does not predict its
    gain from a real model, because no model is always right.

    Args:
        dataset, users, as_ofs, item_vectors, block: as for :func:`history_mean`.
        limit: largest number of interactions that are averaged; with 1, only the next item is used.
        new: True to use only items with which the user had not interacted before, as with ``examples.target:
            next_new_item``.

    Returns:
        Embeddings (N, d) float32, with a row of zeros for a user without such interactions.
    """
    history = dataset.history.first_touches() if new else dataset.history
    return _mean(history.after_batch, users, as_ofs, item_vectors, limit, block)


def _mean(
    gather: Gather, users: np.ndarray, as_ofs: np.ndarray, item_vectors: np.ndarray, limit: int, block: int
) -> np.ndarray:
    """Return the sum (N, d) of the vectors of the items that ``gather`` returns for each user and time, normalised to
    length 1."""
    users, as_ofs = np.asarray(users, dtype=np.int64), np.asarray(as_ofs, dtype=np.int64)
    item_vectors = np.asarray(item_vectors, dtype=np.float32)
    padded = np.concatenate([item_vectors, np.zeros((1, item_vectors.shape[1]), dtype=np.float32)])
    out = np.zeros((len(users), item_vectors.shape[1]), dtype=np.float32)
    for start in range(0, len(users), block):
        items, _ = gather(users[start : start + block], as_ofs[start : start + block], limit)
        for place in range(items.shape[1]):
            out[start : start + block] += padded[items[:, place]]
    norm = np.linalg.norm(out, axis=1, keepdims=True)
    return out / np.where(norm > 0, norm, 1)
