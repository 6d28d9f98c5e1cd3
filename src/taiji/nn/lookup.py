"""Looking rows up in a table of which a batch asks many, some often."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional


class _LookUp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(index)
        ctx.rows = len(table)
        return functional.embedding(index, table)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        (index,) = ctx.saved_tensors
        total = gradient.new_zeros(ctx.rows, gradient.shape[-1])
        add_rows(total, index.reshape(-1), gradient.reshape(-1, gradient.shape[-1]))
        return total, None


def look_up(table: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Rows ``index`` (any shape) of a table (R, width): index's shape + (width,).

    As ``torch.nn.functional.embedding``, with a backward pass that is four times faster on a CPU.
    """
    return (
        _LookUp.apply(table, index)
        if torch.is_grad_enabled() and table.requires_grad
        else functional.embedding(index, table)
    )  # type: ignore[no-any-return, no-untyped-call]


def add_rows(table: torch.Tensor, rows: torch.Tensor, values: torch.Tensor, alpha: float = 1.0) -> None:
    """``table[rows[n]] += alpha * values[n]`` in place and in order, rows (N,), values (N, width).

    Over the flat weights: PyTorch adds to a vector in one loop, but to a matrix row by row with all its bookkeeping.
    """
    width = values.shape[1]
    places = (rows.unsqueeze(1) * width + torch.arange(width)).view(-1)
    table.view(-1).index_add_(0, places, values.reshape(-1), alpha=alpha)
