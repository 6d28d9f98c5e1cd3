"""Packing of token sequences into one row in which every shared prefix occurs once.

The sequences form a radix tree. Its nodes (segments) are written in depth-first order, so that the descendants of a
node are the tokens directly after it. A token may attend to an earlier token if and only if the later token lies before
the end of the earlier token's subtree. Both the masked and the blockwise attention (`prefix_attention`) are based on
this rule.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch

from taiji.core.errors import InputError
from taiji.nn.devices import on_device

MIN_SHARED = 16
"""Smallest number of tokens of a shared segment. Computing fewer tokens several times is cheaper than a separate
segment. Identical sequences that no other sequence continues are stored once, however short they are."""
CLOSE_LENGTH = 0.75
"""Smallest length of a segment in a batch, as a fraction of the longest one. A shorter segment starts a new batch."""


@dataclass(frozen=True)
class Segment:
    """Node of the tree with the packed tokens `start:stop`. Its descendants are the packed tokens `stop:end`."""

    start: int
    stop: int
    end: int
    depth: int

    @property
    def length(self) -> int:
        """Number of the segment's own tokens."""
        return self.stop - self.start


@dataclass(frozen=True)
class Level:
    """Segments whose internal causal attention runs as one batch.

    Attributes:
        rows: packed positions (B, L). A shorter segment repeats its last token at the end, which does not affect the
            earlier tokens.
        valid: (B, L), False for repetitions; None if there are none.
        span: `(start, stop)` if the rows are consecutive packed tokens, so that no gather is needed.
    """

    rows: torch.Tensor
    valid: torch.Tensor | None
    span: tuple[int, int] | None


class Packing:
    """Tokens of a tree's nodes in depth-first order.

    Attributes:
        tokens: (T,) token ids in packed order.
        positions: (T,) position of each token in its sequence.
        segments: the nodes in packed order.
    """

    def __init__(self, tokens: torch.Tensor, positions: torch.Tensor, segments: list[Segment]) -> None:
        self.tokens, self.positions, self.segments = tokens, positions, segments

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def crossings(self) -> list[Segment]:
        """Segments with descendants, shallow ones first: all tokens of `stop:end` attend to all of `start:stop`."""
        return sorted((s for s in self.segments if s.end > s.stop), key=lambda s: (s.depth, s.start))

    @cached_property
    def levels(self) -> list[Level]:
        """Segments, batched by similar length for their internal causal attention."""
        return levels_of(self.segments)

    @cached_property
    def subtree_end(self) -> torch.Tensor:
        """(T,) end of the subtree of each packed token's segment."""
        end = np.empty(len(self), np.int64)
        for segment in self.segments:
            end[segment.start : segment.stop] = segment.end
        return torch.from_numpy(end)

    @cached_property
    def mask(self) -> torch.Tensor:
        """(T, T) bool, True if the query in the row may attend to the key in the column."""
        place = torch.arange(len(self))
        return (place[None, :] <= place[:, None]) & (place[:, None] < self.subtree_end[None, :])

    def mask_within(self, window: int | None) -> torch.Tensor:
        """Return :attr:`mask` (T, T), restricted, for each query, to the latest ``window`` tokens of its sequence up to
        and including itself; None returns the mask unchanged."""
        if window is None:
            return self.mask
        return self.mask & (self.positions[:, None] - self.positions[None, :] < window)

    def may_attend(
        self, device: torch.device
    ) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]:
        """Return the mask as an index function `(batch, head, query, key) -> bool` for FlexAttention."""
        end = on_device(self.subtree_end.numpy(), device)
        return lambda batch, head, query, key: (key <= query) & (query < end[key])


class PackedTree(Packing):
    """Sequences packed with their common prefixes shared.

    Attributes:
        paths: packed positions of each sequence's tokens, one (length,) array per sequence.
    """

    def __init__(self, sequences: Sequence[Sequence[int]], min_shared: int = MIN_SHARED) -> None:
        """Pack `sequences` of at least one token each.

        A common prefix is stored once if it extends the next shorter shared prefix by at least `min_shared` tokens.
        Identical sequences that no other sequence continues are stored once, however short they are.

        Raises:
            TaijiError: there is no sequence, or one is empty.
        """
        rows = [np.asarray(s, dtype=np.int64) for s in sequences]
        if not rows or any(len(r) == 0 for r in rows):
            raise InputError(
                "There is nothing to pack.", expected="sequences of at least one token", found="none, or an empty one"
            )
        self._rows, self._min_shared = rows, min_shared
        self._tokens: list[np.ndarray] = []
        self._positions: list[np.ndarray] = []
        self._segments: list[list[int]] = []
        self._parts: list[list[np.ndarray]] = [[] for _ in rows]
        self._size = 0
        # Sorting makes common prefixes adjacent: the sorted rows i-1 and i share `common[i]` tokens.
        order = sorted(range(len(rows)), key=lambda i: (rows[i].tolist(), i))
        common = [0] + [common_length(rows[a], rows[b]) for a, b in pairwise(order)]
        self._place(order, common, 0, 0)
        super().__init__(
            torch.from_numpy(np.concatenate(self._tokens)),
            torch.from_numpy(np.concatenate(self._positions)),
            [Segment(*s) for s in self._segments],
        )
        self.paths = [np.concatenate(p) for p in self._parts]
        del self._rows, self._tokens, self._positions, self._segments, self._parts

    def _place(self, order: list[int], common: list[int], depth: int, level: int) -> None:
        """Write the sequences with the indices `order`, from position `depth` on.

        They agree on the first `depth` tokens. `common[i]` is the number of leading tokens that the sequences `order[i
        - 1]` and `order[i]` share.
        """
        shared = min([len(self._rows[order[0]]), *common[1:]])
        ended = [i for i in order if len(self._rows[i]) == shared]
        worth = len(order) == 1 or shared - depth >= self._min_shared or len(ended) == len(order)
        if worth and shared > depth:
            segment = self._write(order, depth, shared, level)
            depth, level = shared, level + 1
        else:
            segment = None
            for i in ended:  # too few tokens after `depth` for a shared segment, so the other rows repeat them
                if shared > depth:
                    self._write([i], depth, shared, level)
        begin = len(ended)  # rows that end here are prefixes of the others, so they are sorted first
        for at in range(len(ended) + 1, len(order) + 1):
            if at == len(order) or common[at] <= shared:
                if begin < at:
                    self._place(order[begin:at], common[begin:at], depth, level)
                begin = at
        if segment is not None:
            segment[2] = self._size

    def _write(self, rows: list[int], begin: int, end: int, level: int) -> list[int]:
        start, self._size = self._size, self._size + end - begin
        self._tokens.append(self._rows[rows[0]][begin:end])
        self._positions.append(np.arange(begin, end))
        for i in rows:
            self._parts[i].append(np.arange(start, self._size))
        self._segments.append([start, self._size, self._size, level])
        return self._segments[-1]


def levels_of(segments: Sequence[Segment]) -> list[Level]:
    """Return the segments in batches of similar length. The causal attention within segments runs once per batch."""
    batches: list[list[Segment]] = []
    for segment in sorted(segments, key=lambda s: (-s.length, s.start)):
        if not batches or segment.length < CLOSE_LENGTH * batches[-1][0].length:
            batches.append([])
        batches[-1].append(segment)
    return [_level(sorted(batch, key=lambda s: s.start)) for batch in batches]


def _level(batch: list[Segment]) -> Level:
    longest = max(s.length for s in batch)
    steps = np.arange(longest)
    rows = np.stack([s.start + np.minimum(steps, s.length - 1) for s in batch])
    equal = all(s.length == longest for s in batch)
    joined = equal and all(a.stop == b.start for a, b in pairwise(batch))
    valid = None if equal else torch.from_numpy(np.stack([steps < s.length for s in batch]))
    return Level(torch.from_numpy(rows), valid, (batch[0].start, batch[-1].stop) if joined else None)


def common_length(a: np.ndarray, b: np.ndarray) -> int:
    """Return the number of leading tokens in which two rows agree."""
    size = min(len(a), len(b))
    different = np.flatnonzero(a[:size] != b[:size])
    return int(different[0]) if len(different) else size
