"""Functions that are monotone by construction: exact integrals of positive piecewise linear functions.

A quadrature whose nodes move with the upper limit, such as Clenshaw–Curtis in unconstrained monotone networks, does not
guarantee monotonicity. If the integrand varies faster than the nodes resolve, the sum over a longer interval
can be smaller. On a fixed grid, the integral of a piecewise linear integrand has a closed form, whose derivative is the
positive integrand.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import elu

SMALLEST = 1e-6
"""Smallest value of an integrand."""


def positive(raw: torch.Tensor) -> torch.Tensor:
    """Return ELU(raw) + 1 + :data:`SMALLEST`, which is positive."""
    return elu(raw) + 1 + SMALLEST


def grid_integral(values: torch.Tensor, integrand: torch.Tensor) -> torch.Tensor:
    """Return the exact integral from 0 to x of a function that is piecewise linear on [0, 1] and constant outside.

    The result never decreases as x increases, not even by rounding.

    Args:
        values: (…) upper limits x.
        integrand: (…, G) positive values of the function at 0, 1/(G−1), …, 1.
    """
    cells = integrand.shape[-1] - 1
    areas = (integrand[..., 1:] + integrand[..., :-1]) / (2 * cells)
    sums = torch.cat([torch.zeros_like(areas[..., :1]), areas.cumsum(dim=-1)], dim=-1)
    inside = values.clamp(0.0, 1.0)
    place = (inside * cells).detach().floor().long().clamp(0, cells - 1)
    left, right = _at(integrand, place), _at(integrand, place + 1)
    step = inside * cells - place
    start, end = _at(sums, place), _at(sums, place + 1)
    # In this form, every operation is monotone in floating point. The product step · (left + step · (right − left) / 2)
    # is not.
    part = (left * (1 - (1 - step) ** 2) + right * step**2) / (2 * cells)
    found = torch.minimum(start + part, end)
    outside = torch.where(values < 0, values * integrand[..., 0], (values - inside).clamp(min=0.0) * integrand[..., -1])
    return found + outside


def _at(table: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    return table.gather(-1, place.unsqueeze(-1)).squeeze(-1)


class MonotoneFunctions(nn.Module):
    """K functions t_k(x; h) = ∫₀ˣ f_k(t, h) dt + β_k(h), which increase strictly in x and depend on a context vector h.

    Args:
        functions: number K of functions.
        circumstances: length of h; 0 for functions of x alone.
        grid: number of grid points of each integrand f_k.
        width: hidden width of the network that computes f_k and β_k from h.
    """

    def __init__(self, functions: int, circumstances: int = 0, grid: int = 17, width: int = 32) -> None:
        super().__init__()
        self.shape = (functions, grid)
        self.free = nn.Parameter(torch.zeros(functions, grid))
        self.shift = nn.Parameter(torch.zeros(functions))
        self.network = (
            nn.Sequential(nn.Linear(circumstances, width), nn.Tanh(), nn.Linear(width, functions * (grid + 1)))
            if circumstances
            else None
        )

    def forward(self, values: torch.Tensor, circumstances: torch.Tensor | None = None) -> torch.Tensor:
        """Return t (…, M, K) for x (…, M, K). The context h (``circumstances``) is shared by all M candidates."""
        raw, shift = self.free, self.shift
        if self.network is not None:
            assert circumstances is not None
            given = self.network(circumstances).unflatten(-1, (self.shape[0], self.shape[1] + 1))
            raw, shift = raw + given[..., :-1], shift + given[..., -1]
            raw, shift = raw.unsqueeze(-3), shift.unsqueeze(-2)  # the same for every candidate
        integrand = positive(raw).expand(*values.shape, self.shape[1])
        return grid_integral(values, integrand) + shift
