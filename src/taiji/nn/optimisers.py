"""Adagrad with one step size per row, for embedding tables in which a batch touches only a few rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from taiji.nn.lookup import add_rows


class RowAdagrad(torch.optim.Optimizer):
    """Adagrad (Duchi et al. 2011) with one accumulator per row instead of one per weight. The accumulator is the sum of
    the row's mean squared gradients.

    The optimiser stores one number per row, and a step processes only the rows that have a gradient. If a row occurs
    twice in a sparse gradient, both entries are squared before they are added.

    Args:
        parameters: two-dimensional parameters with sparse gradients.
        lr: learning rate; the first step of a row changes each weight by about this much.
        eps: number added to the square root of the accumulator.
    """

    def __init__(self, parameters: Iterable[torch.Tensor], lr: float, eps: float = 1e-8) -> None:
        super().__init__(parameters, {"lr": lr, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Apply one update from the sparse gradients."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                rows, gradient = parameter.grad._indices()[0], parameter.grad._values()
                state = self.state[parameter]
                if not state:
                    state["sum"] = torch.zeros(len(parameter), dtype=parameter.dtype, device=parameter.device)
                state["sum"].index_add_(0, rows, gradient.square().mean(dim=1))
                scale = state["sum"].index_select(0, rows).sqrt_().add_(group["eps"])
                add_rows(parameter, rows, gradient / scale.unsqueeze(1), alpha=-group["lr"])
