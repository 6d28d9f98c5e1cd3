"""Vectors quantised to int8, with cosines that are bit-for-bit identical for any batching.

The last bits of a float32 matrix product usually depend on the shapes of the matrices. Here, vectors consist of
one-byte integers, so all partial sums of products are integers. Below 2^24, float32 represents them exactly, in any
order of addition. A cosine is one such exact number divided by two lengths. Therefore, it is the same offline among a
million rows and online in a single request.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from taiji.core.errors import InputError

Array = NDArray[Any]
LARGEST = 127
WIDEST = (1 << 24) // LARGEST**2
"""Largest number of dimensions for which every partial sum of a product of codes is exact in float32."""
BITS = 22
"""Largest number of bits per number in :func:`exact_product`."""
EXACT = 53
"""Number of bits up to which float64 represents every integer exactly."""


@dataclass(frozen=True, eq=False)
class QuantisedVectors:
    """Quantised vectors, of which only the directions matter.

    Attributes:
        codes: (n, d) int8 vectors. A row of zeros has no direction, and all its cosines are 0.
    """

    codes: Array

    def __post_init__(self) -> None:
        if self.codes.shape[1] > WIDEST:
            raise InputError(
                "The vectors have too many dimensions for exact cosines.",
                expected=f"at most {WIDEST} dimensions",
                found=str(self.codes.shape[1]),
                fix="project them to fewer dimensions first",
            )

    @classmethod
    def of(cls, vectors: Array) -> Self:
        """Return quantised vectors (n, d). Each vector is scaled so that its largest absolute value is 127, and is then
        rounded."""
        largest = np.abs(vectors).max(axis=1, initial=0.0, keepdims=True)
        scaled = np.divide(vectors * LARGEST, largest, out=np.zeros(vectors.shape), where=largest > 0)
        return cls(np.rint(scaled).astype(np.int8))

    def __len__(self) -> int:
        return len(self.codes)

    @cached_property
    def inverse_lengths(self) -> Array:
        """Inverse length (n,) float32 of each row of ``codes``; 0 for a row of zeros."""
        squares = np.einsum("nd,nd->n", self.codes, self.codes, dtype=np.int32).astype(np.float64)
        lengths = np.sqrt(squares)
        return np.divide(1.0, lengths, out=np.zeros_like(lengths), where=lengths > 0).astype(np.float32)

    def take(self, places: Array) -> QuantisedVectors:
        """Return the vectors at indices (m,); −1 gives a row of zeros."""
        codes = self.codes[places]
        codes[places < 0] = 0
        return QuantisedVectors(codes)

    def unit(self) -> Array:
        """Return the unit vectors (n, d) float64. Rows of zeros stay zero."""
        return self.codes * self.inverse_lengths[:, None].astype(np.float64)

    def cosines(self, others: QuantisedVectors) -> Array:
        """Return the cosines (n, m) float32 of each vector with each of the m other vectors."""
        products = self.codes.astype(np.float32) @ others.codes.astype(np.float32).T
        return products * self.inverse_lengths[:, None] * others.inverse_lengths + np.float32(0)

    def batch_cosines(self, sets: Array, items: Array) -> Array:
        """Return the cosines (L, R, M) float32 between the L vectors of each request's set and the request's M
        candidates.

        Args:
            sets: (R, L) indices of the vectors in each request's set; −1 stands for a vector of zeros.
            items: (R, M) indices of each request's candidates; −1 stands for a vector of zeros.
        """
        left, right = self.codes[sets].astype(np.float32), self.codes[items].astype(np.float32)
        lengths = (
            np.where(sets >= 0, self.inverse_lengths[sets], 0),
            np.where(items >= 0, self.inverse_lengths[items], 0),
        )
        products = np.matmul(left, right.transpose(0, 2, 1))  # (R, L, M)
        products *= lengths[0][:, :, None]
        products *= lengths[1][:, None, :]
        products += np.float32(0)  # turns −0 into 0, because the sign of a zero would depend on the gathered rows
        return products.transpose(1, 0, 2)


def exact_product(left: Array, right: Array) -> Array:
    """Return ``left @ right`` for (n, d) and (d, k) in float64. Each row is bit-for-bit independent of the other rows.

    Both factors are first scaled by powers of two and rounded to integers of at most :data:`BITS` bits. Each row of
    ``left`` has its own power, and ``right`` has a common one. The products and the sums of d products are then
    integers that float64 represents exactly. For d above 512, fewer bits are kept.
    """
    bits = min(BITS, (EXACT - max(left.shape[1] - 1, 0).bit_length()) // 2)
    rows, row_scale = _whole(left, np.abs(left).max(axis=1, initial=0.0, keepdims=True), bits)
    columns, scale = _whole(right, np.abs(right).max(initial=0.0, keepdims=True), bits)
    return (rows @ columns + 0.0) * (row_scale * scale)  # type: ignore[no-any-return]


def _whole(values: Array, largest: Array, bits: int) -> tuple[Array, Array]:
    """Return values rounded to integers of at most ``bits`` bits, and the power of two by which these must be
    multiplied."""
    exponent = np.where(largest > 0, np.ceil(np.log2(np.where(largest > 0, largest, 1.0))), 0.0)
    scale = np.exp2(exponent - bits)
    return np.rint(values / scale), scale
