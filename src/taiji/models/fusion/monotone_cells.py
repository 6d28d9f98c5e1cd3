"""Fusion whose score is a sum of monotone functions ("cells"), one per prediction (xMTF, arXiv 2504.05669).

Unlike the paper's functions, these are exactly monotone. This module contains the inner stage of xMTF, which is
supervised. The outer stage, a policy, is in ``session_cells.py``.

For predictions o_k and the state s of the request, the score is z = Σ_k h_k(o_k, s) with h_k = outer ∘ inner. The inner
function is an exact integral of a positive function (``nn/monotone.py``), so no penalty for decreasing parts is needed.
The outer function is q (1 + a_k q), where q is the value of the inner function and a_k is a parameter, called the
action. It rises as long as 1 + 2 a_k q > 0. Weighted sums and weighted products have the form of z, too, up to an
increasing function of the sum, which does not affect the order.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from taiji.core.component import Requests
from taiji.core.errors import InputError
from taiji.core.settings import Settings as Base
from taiji.models.fusion.learnt_fusion import FusionRows, FusionSettings, LearntFusion
from taiji.nn.monotone import MonotoneFunctions
from taiji.nn.normal_scale import normal_scores, scale_knots

Array = NDArray[Any]
LOWEST = -0.5
"""Smallest permitted action a. With it, 1 + 2 a q is still positive for all q below 1."""


class CellsSettings(FusionSettings):
    """Settings of monotone cells."""

    columns: tuple[str, ...] = ()
    """State of a request: numeric columns of the requests or users, each with one number per request."""
    grid: int = Field(default=17, ge=2)
    """Number of points at which an integrand is parametrised."""
    width: PositiveInt = 32
    epochs: PositiveInt = 20
    batch: PositiveInt = 128
    """Number of slates per step."""
    rate: float = Field(default=5e-3, gt=0)


class MonotoneCells(LearntFusion):
    """Fusion by Σ_k q_k (1 + a_k q_k), where q_k in [0, 1] is an exactly monotone function of prediction k.

    The fusion is fitted to the order of the weighted labels. The score never falls as a prediction rises, for any
    permitted action.

    Attributes:
        action: (K,) parameter a of the outer functions, at least :data:`LOWEST`; 0 after :meth:`fit`.
    """

    Settings: ClassVar[type[Base]] = CellsSettings
    settings: CellsSettings

    def learn(self, rows: FusionRows, seed: int) -> None:
        """Fit the inner functions to the order of the weighted labels within slates; see :meth:`order`."""
        s = self.settings
        values = self.stacked(rows.predictions)
        worth = self.reward(rows)
        known = np.isfinite(values).all(axis=2) & np.isfinite(worth)
        self.knots = [scale_knots(values[known, task]) for task in range(len(self.tasks))]
        self.action = np.zeros(len(self.tasks))
        self.learn_columns(s.columns, rows.requests)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = MonotoneFunctions(len(self.tasks), len(s.columns), s.grid, s.width).double()
        self.order(values, worth, rows.requests, seed)

    def order(self, values: Array, worth: Array, requests: Requests, seed: int) -> None:
        """Continue the training of the inner functions, so that the candidates of a slate are ordered by ``worth``.

        The loss is the mean of −log σ(c (z_i − z_j)) over the pairs of candidates of a slate in which i is worth more
        than j; the factor c > 0 is learnt.

        Args:
            values: (B, M, K) predictions.
            worth: (B, M) values that give the order of the candidates, NaN where unknown.
            requests: requests of the slates.
            seed: random seed of the order in which slates are read.
        """
        s = self.settings
        known = np.isfinite(values).all(axis=2) & np.isfinite(worth)
        x = torch.as_tensor(self._scaled(np.where(known[..., None], values, 0.0)))
        columns = torch.as_tensor(self.known_columns(s.columns, requests))
        better = (
            known[:, :, None]
            & known[:, None, :]
            & (np.nan_to_num(worth)[:, :, None] > np.nan_to_num(worth)[:, None, :])
        )
        pairs = torch.as_tensor(better)
        still = torch.zeros(len(self.tasks), dtype=torch.float64)
        scale = torch.zeros(
            (), dtype=torch.float64, requires_grad=True
        )  # log of c; it is learnt because the sum of K cells, and thus each difference of sums, is bounded
        optimiser = torch.optim.Adam([*self.network.parameters(), scale], lr=s.rate)
        random = np.random.default_rng(seed)
        for _ in range(s.epochs):
            for part in np.array_split(random.permutation(len(x)), max(1, len(x) // s.batch)):
                at = torch.as_tensor(part)
                z = self._sum(x[at], columns[at], still)
                gap = (scale.exp() * (z[:, :, None] - z[:, None, :]))[pairs[at]]
                if not len(gap):
                    continue
                loss = torch.nn.functional.softplus(-gap).mean()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()

    def act(self, action: Array) -> None:
        """Set the action of the outer functions, as chosen by a policy.

        Raises:
            InputError: the action does not have K finite numbers of at least :data:`LOWEST`.
        """
        found = np.asarray(action, np.float64)
        if found.shape != (len(self.tasks),) or not (np.isfinite(found).all() and found.min() >= LOWEST):
            raise InputError(
                "With this action, the score could fall as a prediction rises.",
                where="action",
                expected=f"{len(self.tasks)} numbers of at least {LOWEST}",
                found=str(found.tolist()),
            )
        self.action = found

    def actions(self, requests: Requests) -> Array:
        """Return the parameters a of the outer functions for each request, (B, K)."""
        return np.broadcast_to(self.action, (len(requests), len(self.tasks)))

    def score(self, values: Array, requests: Requests) -> Array:
        """Return the sums of the cells, (B, M)."""
        return self.by_actions(values, requests, self.actions(requests))

    def by_actions(self, values: Array, requests: Requests, actions: Array) -> Array:
        """Return the sums of the cells (B, M) with given actions (B, K)."""
        x, columns = (
            torch.as_tensor(self._scaled(values)),
            torch.as_tensor(self.known_columns(self.settings.columns, requests)),
        )
        with torch.inference_mode():
            return np.asarray(self._sum(x, columns, torch.tensor(actions)[:, None]).numpy())

    def weights(self) -> dict[str, Array]:
        """Return the cells, the action and the scales of the predictions."""
        found = {f"network.{name}": value.numpy() for name, value in self.network.state_dict().items()}
        return {
            "action": self.action,
            "usual": self.usual_columns,
            **found,
            **{f"knots.{n}": knots for n, knots in enumerate(self.knots)},
        }

    def restore(self, weights: dict[str, Array]) -> None:
        """Restore the fusion from :meth:`weights`."""
        s = self.settings
        self.knots = [weights[f"knots.{number}"] for number in range(len(self.tasks))]
        self.action = weights["action"]
        self.usual_columns = weights.get("usual", np.zeros(len(s.columns)))
        self.network = MonotoneFunctions(len(self.tasks), len(s.columns), s.grid, s.width).double()
        own = {n.removeprefix("network."): torch.as_tensor(v) for n, v in weights.items() if n.startswith("network.")}
        self.network.load_state_dict(own)

    def _sum(self, scaled: torch.Tensor, columns: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """Return the scores (B, M) of scaled predictions (B, M, K) with actions (K,) or (B, 1, K)."""
        inner = self.network(scaled, columns if self.settings.columns else None)
        # q lies between 0 and 1, as the bound of the action requires. Unlike a logistic function, this function is
        # monotone in floating point as well.
        q = torch.where(inner >= 0, 1 - 0.5 / (1 + inner.abs()), 0.5 / (1 + inner.abs()))
        parts = outer(q, actions)
        total = torch.zeros_like(q[..., 0])
        for task in range(len(self.tasks)):
            total = total + parts[..., task]
        return total

    def _scaled(self, values: Array) -> Array:
        return np.stack([normal_scores(values[..., k], knots) / 6 + 0.5 for k, knots in enumerate(self.knots)], axis=2)


def outer(q: torch.Tensor, a: torch.Tensor | float) -> torch.Tensor:
    """Return q (1 + a q) for q in [0, 1] and a ≥ −1/2, in a form that is monotone in floating point as well.

    For a < 0, the form is (1 + 2a) q − a (1 − (1 − q)²), a sum of two terms that both rise with q.
    """
    bend = torch.as_tensor(a, dtype=q.dtype)
    up, down = bend.clamp(min=0.0), bend.clamp(max=0.0)
    return torch.where(bend >= 0, q + up * q**2, (1 + 2 * down) * q - down * (1 - (1 - q) ** 2))
