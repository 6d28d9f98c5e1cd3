"""Training and validation batches of a decoder over item codes. A batch holds histories of similar length, in which
every interaction is a target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taiji.data.history import History

Array = NDArray[Any]
POOL = 16
"""Number of batches whose histories are sorted by length together, which keeps padding low."""


@dataclass(frozen=True)
class CodeBatch:
    """Batch of windows, each with the last interactions of a user's history.

    Attributes:
        items: (R, n + 1) interactions, oldest first, padded with −1. An interaction is given by the index of its item's
            codes in the decoder's ``code_log``, and is predicted from the interactions before it.
        places: (R, n + 1) positions of the interactions in the arrays of the history of all users, padded with −1.
        users: (R,) user of each row.
    """

    items: Array
    places: Array
    users: Array


class Windows:
    """Windows for training or validation: the last interactions of each user.

    Args:
        history: history of all users.
        ends: (U,) exclusive end of each user's window in the arrays of ``history``.
        length: largest number of interactions before the last target.
    """

    def __init__(self, history: History, ends: Array, length: int) -> None:
        self.items = np.asarray(history.items, np.int64)
        self.starts = np.maximum(history.offsets[:-1], ends - length - 1)
        self.lengths = ends - self.starts
        self.users = np.flatnonzero(self.lengths > 0)

    def epoch(self, batch: int, random: np.random.Generator) -> Iterator[CodeBatch]:
        """Yield batches of at most ``batch`` users with windows of similar length, in random order. Each user occurs
        once."""
        order = random.permutation(self.users)
        pools = [order[at : at + POOL * batch] for at in range(0, len(order), POOL * batch)]
        chunks = [
            chunk
            for pool in pools
            for ordered in [pool[np.argsort(self.lengths[pool], kind="stable")]]
            for chunk in (ordered[at : at + batch] for at in range(0, len(ordered), batch))
        ]
        for place in random.permutation(len(chunks)):
            yield self.batch(chunks[place])

    def batch(self, users: Array) -> CodeBatch:
        """Return the windows of the given users (R,)."""
        step = np.arange(int(self.lengths[users].max()))
        inside = step < self.lengths[users][:, None]
        places = np.where(inside, self.starts[users][:, None] + step, -1)
        return CodeBatch(np.where(inside, self.items[places], -1), places, users)


def held_out(history: History, most: int, random: np.random.Generator) -> Array:
    """Choose at most ``most`` random users with at least two interactions, and return them in ascending order."""
    users = np.flatnonzero(np.diff(history.offsets) >= 2)
    return users if len(users) <= most else np.sort(random.choice(users, most, replace=False))
