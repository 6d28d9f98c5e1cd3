"""Division of a packed tree into shared tokens (of several sequences) and private tokens (of a single sequence).

Shared tokens attend only to shared tokens, so they can be computed first. The private tokens then use the keys and
values of the shared tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from taiji.language.prefix_tree import Level, PackedTree, Packing, Segment, levels_of


@dataclass(frozen=True)
class Above:
    """Shared segment with the private tokens that attend to all of it.

    Attributes:
        own: the segment's tokens in the shared packing.
        below: the private tokens, in the private packing.
        levels: batches of B segments of similar length that contain the tokens of ``below``, each with the indices (B,)
            of the sequences to which its segments belong.
    """

    own: slice
    below: slice
    levels: list[tuple[Level, torch.Tensor]]


class SplitTree:
    """Packed tree divided into shared and private tokens.

    Attributes:
        shared: tokens of at least two sequences.
        private: tokens of a single sequence.
        is_private: (T,) bool, for each token of the whole tree, True if it is private.
        place: (T,) position of each token of the whole tree in ``shared`` or ``private``.
        sequence: (private tokens,) index of the sequence of each token.
        above: shared segments with private descendants.
    """

    def __init__(self, tree: PackedTree) -> None:
        """Divide a tree. Either part may be empty."""
        uses = np.bincount(np.concatenate(tree.paths), minlength=len(tree))
        self.is_private = uses == 1
        self.place = np.where(self.is_private, self.is_private.cumsum(), (~self.is_private).cumsum()) - 1
        owner = np.zeros(len(tree), np.int64)
        for number, path in enumerate(tree.paths):
            owner[path] = number
        self.sequence = torch.from_numpy(owner[self.is_private])
        self.shared = _restricted(tree, ~self.is_private)
        self.private = _restricted(tree, self.is_private)
        before = np.concatenate([[0], self.is_private.cumsum()])
        self.above = [
            self._above(slice(own.start, own.stop), int(before[whole.stop]), int(before[whole.end]))
            for own, whole in zip(self.shared.segments, (s for s in tree.segments if not self.is_private[s.start]))
            if before[whole.stop] < before[whole.end]
        ]

    def _above(self, own: slice, start: int, stop: int) -> Above:
        levels = levels_of([s for s in self.private.segments if start <= s.start < stop])
        return Above(own, slice(start, stop), [(level, self.sequence[level.rows[:, 0]]) for level in levels])


def _restricted(tree: PackedTree, kept: np.ndarray) -> Packing:
    """Return a packing of the kept tokens of a tree.

    ``kept`` must contain, for each kept segment, either all of its ancestors or none.
    """
    before = np.concatenate([[0], kept.cumsum()])
    index = torch.from_numpy(kept)
    return Packing(
        tree.tokens[index],
        tree.positions[index],
        [
            Segment(int(before[s.start]), int(before[s.stop]), int(before[s.end]), s.depth)
            for s in tree.segments
            if kept[s.start]
        ],
    )
