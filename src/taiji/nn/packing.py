"""Packing of sequences of different lengths into rows of equal length, to avoid computation on padding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Packing:
    """Positions of packed sequences in the rows of an array.

    Attributes:
        row: (S,) row of each sequence.
        start: (S,) first column of each sequence.
        rows, length: numbers of rows and columns of the packed array.
    """

    row: Array
    start: Array
    rows: int
    length: int

    def places(self, lengths: Array) -> Array:
        """Return the flat index ``row * length + column`` (sum of lengths,) of every entry, sequence by sequence."""
        first = self.row * self.length + self.start
        offsets = np.cumsum(lengths) - lengths
        return np.repeat(first - offsets, lengths) + np.arange(int(lengths.sum()))


def pack(lengths: Array, length: int) -> Packing:
    """Pack sequences by first-fit decreasing: longest sequence first, and each into the first row with enough free
    columns.

    Args:
        lengths: (S,) length of each sequence, from 1 to ``length``.
        length: length of a row.
    """
    row, start = np.zeros(len(lengths), np.int64), np.zeros(len(lengths), np.int64)
    used = np.zeros(len(lengths), np.int64)
    rows = 0
    for sequence in np.argsort(-lengths, kind="stable"):
        size = lengths[sequence]
        fits = used[:rows] <= length - size
        at = int(fits.argmax()) if fits.any() else rows
        rows = max(rows, at + 1)
        row[sequence], start[sequence] = at, used[at]
        used[at] += size
    return Packing(row, start, rows, length)
