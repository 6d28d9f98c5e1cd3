"""Embedding lookups of many rows, which are often repeated. On a CPU, the backward pass is faster than PyTorch's."""

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


def on_cpu(tensor: torch.Tensor) -> bool:
    """Return True if the tensor is on a CPU, where faster implementations replace PyTorch's operations."""
    return tensor.device.type == "cpu"


def look_up(table: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Return rows ``index`` (any shape) of a table (R, width), with shape ``index.shape + (width,)``.

    The result equals that of ``torch.nn.functional.embedding``, which other devices use. On a CPU, the backward pass is
    four times faster than PyTorch's.
    """
    if torch.is_grad_enabled() and table.requires_grad and on_cpu(table):
        return _LookUp.apply(table, index)  # type: ignore[no-any-return, no-untyped-call]
    return functional.embedding(index, table)


def add_rows(table: torch.Tensor, rows: torch.Tensor, values: torch.Tensor, alpha: float = 1.0) -> None:
    """Add ``alpha * values[n]`` to ``table[rows[n]]`` in place for every n, with rows (N,) and values (N, width).

    On a CPU, the table is flattened first, because ``index_add_`` has an overhead per row of a matrix, but none per
    entry of a vector. Other devices call ``index_add_`` on the matrix.
    """
    if not on_cpu(table):
        table.index_add_(0, rows, values, alpha=alpha)
        return
    width = values.shape[1]
    places = (rows.unsqueeze(1) * width + torch.arange(width)).view(-1)
    table.view(-1).index_add_(0, places, values.reshape(-1), alpha=alpha)
