"""Training and validation histories of a decoder over item codes: rows of similar length, in which every position is a
target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taiji.data.history import History

Array = NDArray[Any]
POOL = 16
"""Number of batches whose histories are sorted by length together."""


@dataclass(frozen=True)
class CodeBatch:
    """Windows of histories.

    Attributes:
        items: (R, n + 1) items of the interactions, oldest first, padded with −1, each given by the index of its codes
            in the decoder's ``code_log``. Each interaction is predicted from those before it.
        places: (R, n + 1) indices of the interactions in the history's arrays, padded with −1.
        users: (R,) user of each row.
    """

    items: Array
    places: Array
    users: Array


class Windows:
    """Last interactions of each user, as windows for training or validation.

    Args:
        history: history of all users.
        ends: (U,) exclusive end of the usable part of each user's history.
        length: largest number of interactions before the last target.
    """

    def __init__(self, history: History, ends: Array, length: int) -> None:
        self.items = np.asarray(history.items, np.int64)
        self.starts = np.maximum(history.offsets[:-1], ends - length - 1)
        self.lengths = ends - self.starts
        self.users = np.flatnonzero(self.lengths > 0)

    def epoch(self, batch: int, random: np.random.Generator) -> Iterator[CodeBatch]:
        """Yield batches of ``batch`` users with histories of similar length, in random order. Each user occurs once."""
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
        """Return the windows of some users."""
        step = np.arange(int(self.lengths[users].max()))
        inside = step < self.lengths[users][:, None]
        places = np.where(inside, self.starts[users][:, None] + step, -1)
        return CodeBatch(np.where(inside, self.items[places], -1), places, users)


def held_out(history: History, most: int, random: np.random.Generator) -> Array:
    """Return at most ``most`` random users with at least two interactions, ascending."""
    users = np.flatnonzero(np.diff(history.offsets) >= 2)
    return users if len(users) <= most else np.sort(random.choice(users, most, replace=False))
