"""Backward pass of attention as plain matrix products, for processors that multiply bfloat16 matrices fast.

On processors with AMX or AVX-512 bf16, PyTorch's flash kernel for CPUs runs its backward pass at a fraction of the rate
of matrix products. Here, blocks of scores are computed explicitly, as P = exp(s Q Kᵀ − L) and dP = dO Vᵀ − D, with five
products per block and two passes over its scores. L is the log-sum-exp of a query's scores, and D the inner product of
its output and the gradient of this output. L and D are subtracted inside the products, before the results are rounded:
L becomes two additional columns of Q, D two additional columns of dO, and the corresponding columns of K and V are
ones. So only the exponent is rounded, and not the score. All exponents are shifted by half the logarithm of the number
of keys, because rounding errors are smallest near 0. dO and D are divided by the corresponding power of two, which is
exact.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch

SCORES = 1 << 23
"""Largest number of scores per block (16 MB in bfloat16). Each thread keeps the memory of two blocks, because new
memory for every layer would cost as much time as the products."""
LANES = 32
"""The inner dimension of a product is padded to a multiple of this number, the length of an AMX row."""


KEYS = 1024
"""Largest number of keys per block."""
CAUSAL_KEYS = 320
"""Largest number of keys per block of causal attention. It is smaller than `KEYS`, because the scores above the
diagonal of a block are computed but not used."""
_kept = threading.local()


@cache
def products_pay() -> bool:
    """Return True if bf16 products are faster than the flash kernel on this processor: with AMX, or with AVX-512 bf16
    on an AMD processor. On an Intel processor restricted to AVX-512 bf16, the products were slower
    (docs/performance.md)."""
    if getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)():
        return True
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()) and _made_by_amd()


def _made_by_amd() -> bool:
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False


def extended(tensor: torch.Tensor, column: torch.Tensor | None) -> torch.Tensor:
    """Append a column as two columns, its rounded values and their rounding errors, and pad with zeros to a multiple of
    `LANES`. Without a column, append two columns of ones.

    Args:
        tensor: (..., d).
        column: (...), at least in float32; None for ones.

    Returns:
        (..., w), in the dtype of the tensor, where w is the padded width.
    """
    size = tensor.shape[-1]
    made = tensor.new_zeros(*tensor.shape[:-1], -(-(size + 2) // LANES) * LANES)
    made[..., :size] = tensor
    if column is None:
        made[..., size : size + 2] = 1
    else:
        coarse = column.to(tensor.dtype)
        made[..., size] = coarse
        made[..., size + 1] = column - coarse.to(column.dtype)
    return made


@dataclass(frozen=True)
class Factors:
    """Inputs of the products for a batch of queries and keys; see :func:`extended` for the width w.

    Attributes:
        query: (B, Hq, L, w) queries, extended by −log-sum-exp / scale.
        grad: (B, Hq, L, w) gradients of the output, extended by −(inner product of output and gradient).
        key, value: (B, Hk, S, w), extended by ones.
        size: d, the size of a head.
        scale: scale of the scores.
    """

    query: torch.Tensor
    grad: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    size: int
    scale: float

    @classmethod
    def of(
        cls,
        grad: torch.Tensor,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        out: torch.Tensor,
        lse: torch.Tensor,
        scale: float,
    ) -> Factors:
        """Return the factors for an output and its gradient, each (B, Hq, L, d), and the log-sum-exp (B, Hq, L, 1)."""
        wide = torch.promote_types(query.dtype, torch.float32)
        slope = (grad.to(wide) * out.to(wide)).sum(-1)
        shift = round(math.log2(max(key.shape[2], 1)) / 2)
        return cls(
            extended(query, (lse.squeeze(-1) - shift * math.log(2)) / -scale),
            extended(grad, -slope).mul_(2.0**-shift),
            extended(key, None),
            extended(value, None),
            query.shape[-1],
            scale,
        )

    def taken(
        self, ask: Callable[[torch.Tensor], torch.Tensor], give: Callable[[torch.Tensor], torch.Tensor]
    ) -> Factors:
        """Return the factors of some queries (rows taken by ``ask``) and of some keys (rows taken by ``give``)."""
        return replace(self, query=ask(self.query), grad=ask(self.grad), key=give(self.key), value=give(self.value))

    def gradients(
        self, causal: bool, weights: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the gradients of query (B, Hq, L, d), key and value (B, Hk, S, d), all in float32.

        Args:
            causal: True if query number i attends only to the keys 0 ... i.
            weights: (D, L) weights of the queries in D sums of the gradients of key and value, which then have shape
                (B, Hk, S, D, d). The gradient of the query is not weighted.
        """
        size, scale = self.size, self.scale
        batch, heads, length, width = self.query.shape
        groups, count = heads // self.key.shape[1], self.key.shape[2]
        query, grad = (t.reshape(-1, groups, length, width) for t in (self.query, self.grad))
        key, value = self.key.flatten(0, 1), self.value.flatten(0, 1)
        plain, sums = key[..., :size], 1 if weights is None else len(weights)
        wide = torch.promote_types(key.dtype, torch.float32)
        to_query = key.new_zeros(*query.shape[:-1], size, dtype=wide)
        to_key, to_value = (key.new_zeros(len(key), sums * size, count, dtype=wide) for _ in range(2))
        for first, last in blocks(0, count, CAUSAL_KEYS if causal else KEYS):
            given = slice(first, last)
            rows = SCORES // (len(key) * groups * (last - first))
            for start, stop in blocks(first if causal else 0, length, max(rows, 1)):
                asking, back = (t[:, :, start:stop].flatten(1, 2) for t in (query, grad))
                shares, slopes = scratch(key.dtype, len(key), asking.shape[1], last - first)
                torch.baddbmm(shares, asking, key[:, given].mT, beta=0, alpha=scale, out=shares).exp_()
                if causal and start < last:
                    shares.unflatten(1, (groups, -1)).tril_(start - first)
                torch.bmm(back, value[:, given].mT, out=slopes).mul_(shares)
                to_query[:, :, start:stop] += torch.bmm(slopes, plain[:, given]).unflatten(1, (groups, -1))
                asking, back = asking[..., :size], back[..., :size]
                if weights is not None:
                    by_row = weights[:, start:stop].t().repeat(groups, 1)
                    asking, back = weighted(asking, by_row), weighted(back, by_row)
                to_key[..., given] += torch.bmm(asking.mT, slopes)
                to_value[..., given] += torch.bmm(back.mT, shares)
        to_query.mul_(scale)
        found = [t.mT.unflatten(0, (batch, -1)) for t in (to_key.mul_(scale), to_value)]
        if weights is not None:
            found = [t.unflatten(-1, (sums, size)) for t in found]
        return to_query.flatten(1, 2).view(batch, heads, length, size), found[0], found[1]


def weighted(rows: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the rows (B, L, d) multiplied by each of D weights (L, D), side by side, (B, L, D * d), rounded once."""
    return (rows.unsqueeze(-2).to(weights.dtype) * weights.unsqueeze(-1)).flatten(-2).to(rows.dtype)


def blocks(start: int, stop: int, most: int) -> Iterator[tuple[int, int]]:
    """Divide a range into blocks of nearly equal size, of at most ``most`` indices each, and yield the start and the
    (exclusive) end of each block."""
    size = -(-(stop - start) // max(-(-(stop - start) // most), 1))
    for first in range(start, stop, max(size, 1)):
        yield first, min(first + size, stop)


def scratch(dtype: torch.dtype, *shape: int) -> list[torch.Tensor]:
    """Return two tensors with arbitrary values, valid until this thread's next call."""
    size = math.prod(shape)
    kept: torch.Tensor | None = getattr(_kept, "scores", None)
    if kept is None or kept.dtype != dtype or kept.shape[1] < size:
        kept = _kept.scores = torch.empty(2, size, dtype=dtype)
    return [row[:size].view(shape) for row in kept]
