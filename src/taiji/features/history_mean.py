"""The rival without an LLM: the mean embedding of what the user did last."""

from __future__ import annotations

from typing import Any

import numpy as np


def history_mean(dataset: Any, users: np.ndarray, as_ofs: np.ndarray, item_vectors: np.ndarray, limit: int = 50, block: int = 8192) -> np.ndarray:
    """Mean embedding of a user's last interactions strictly before a moment, normalised to length 1.

    Args:
        dataset: its history is read.
        users, as_ofs: (N,) dense ids and microseconds.
        item_vectors: (n_items, d) embedding of each item's text.
        limit: interactions averaged.
        block: rows at a time.

    Returns:
        (N, d) float32; a zero row for a user without history.
    """
    users, as_ofs = np.asarray(users, dtype=np.int64), np.asarray(as_ofs, dtype=np.int64)
    item_vectors = np.asarray(item_vectors, dtype=np.float32)
    padded = np.concatenate([item_vectors, np.zeros((1, item_vectors.shape[1]), dtype=np.float32)])
    out = np.zeros((len(users), item_vectors.shape[1]), dtype=np.float32)
    for start in range(0, len(users), block):
        items, _ = dataset.history.before_batch(users[start : start + block], as_ofs[start : start + block], limit)
        for place in range(items.shape[1]):
            out[start : start + block] += padded[items[:, place]]
    norm = np.linalg.norm(out, axis=1, keepdims=True)
    return out / np.where(norm > 0, norm, 1)
