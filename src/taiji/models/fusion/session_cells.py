"""Monotone cells whose outer functions are set by a policy that is learnt from session returns (outer stage of xMTF).

The inner functions are fitted to the order of the logged labels (``monotone_cells.py``). For each request, the policy
reads the state of the session and sets the slopes of the outer functions, to increase the return over the rest of the
session. Then the inner functions are fitted to the order that the policy produces, and the policy is reset, so that it
changes nothing. State and action are the same for all candidates of a request, so the score still never falls as a
prediction rises.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from taiji.core.component import Fuser, Requests
from taiji.core.errors import ArtifactError, ConfigError
from taiji.core.settings import Settings as Base
from taiji.models.fusion.learnt_fusion import FusionRows, filled, request_numbers, usual_values
from taiji.models.fusion.monotone_cells import CellsSettings, MonotoneCells
from taiji.models.fusion.weighted import BesideMerge
from taiji.models.policy.session_policy import SessionPolicy

Array = NDArray[Any]
STEEPEST = 10.0
"""Bound on the logarithm of the factor by which the policy multiplies a slope, so that no action overflows."""


class SessionCellsSettings(CellsSettings):
    """Settings of cells with a policy."""

    state: tuple[str, ...] = ()
    """State that the policy reads: numeric columns of the requests or users. Predictions are not permitted."""
    spread: float = Field(default=1.0, gt=0)
    """Standard deviation of the policy parameters that are drawn for exploration."""
    policy_rate: float = Field(default=10.0, gt=0)
    """Step size of the policy for standardised returns."""


class SessionCells(MonotoneCells):
    """Cells with a policy over the outer functions. After :meth:`fit`, the policy does not yet change anything.

    Attributes:
        policy: policy that outputs, for each outer function, the logarithm of the factor that multiplies its slope.
    """

    Settings: ClassVar[type[Base]] = SessionCellsSettings
    settings: SessionCellsSettings

    def learn(self, rows: FusionRows, seed: int) -> None:
        """Fit the inner functions and the scale of the state."""
        super().learn(rows, seed)
        self.centre = usual_values(request_numbers(self.settings.state, rows.requests, self.dataset))
        self.scale = np.maximum(self._told(rows.requests).std(axis=0), 1e-9)
        self.policy = SessionPolicy(len(self.tasks), len(self.settings.state), self.settings.spread)

    def actions(self, requests: Requests, parameters: Array | None = None) -> Array:
        """Return actions (B, K).

        With action a, the slope of an outer function at q = 1 is 1 + 2 a. The policy's output u multiplies this slope
        by e^u, so that the slope stays positive.

        Args:
            requests: B requests.
            parameters: (B, K, S + 1) parameters drawn for the requests' sessions; None for the policy's own parameters.
        """
        states = np.clip((self._told(requests) - self.centre) / self.scale, -2.0, 2.0) / 2
        slope = (1 + 2 * self.action) * np.exp(np.clip(self.policy.act(states, parameters), -STEEPEST, STEEPEST))
        return np.asarray((slope - 1) / 2)

    def explore(self, values: Array, requests: Requests, parameters: Array) -> Array:
        """Return scores (B, M) of predictions (B, M, K) with drawn parameters (B, K, S + 1)."""
        return self.by_actions(values, requests, self.actions(requests, parameters))

    def improve(self, drawn: Array, returns: Array) -> None:
        """Move the policy one step towards the drawn parameters (N, K, S + 1) with higher session returns (N,)."""
        self.policy.improve(drawn, returns, self.settings.policy_rate)

    def transfer(self, rows: FusionRows, seed: int) -> None:
        """Fit the inner functions to the order of the current scores, and reset the policy."""
        values = self.stacked(rows.predictions)
        known = np.asarray(np.isfinite(values).all(axis=2))
        found = self.score(np.where(known[..., None], values, 0.0), rows.requests)
        self.action = np.zeros(len(self.tasks))
        self.policy.parameters = np.zeros_like(self.policy.parameters)
        self.order(values, np.where(known, found, np.nan), rows.requests, seed)

    def weights(self) -> dict[str, Array]:
        """Return the cells, the policy and the scale of its state."""
        own = {"parameters": self.policy.parameters, "centre": self.centre, "scale": self.scale}
        return {**super().weights(), **{f"policy.{name}": values for name, values in own.items()}}

    def restore(self, weights: dict[str, Array]) -> None:
        """Restore the fusion from :meth:`weights`."""
        super().restore(weights)
        self.centre, self.scale = weights["policy.centre"], weights["policy.scale"]
        self.policy = SessionPolicy(len(self.tasks), len(self.settings.state), self.settings.spread)
        self.policy.parameters = weights["policy.parameters"]

    def _told(self, requests: Requests) -> Array:
        """Return the states of the requests' sessions (B, S), with the centre in place of missing values."""
        return filled(request_numbers(self.settings.state, requests, self.dataset), self.centre)


def saved_session_cells(weights: Mapping[str, float], *, folder: str, version: str) -> Fuser:
    """Load saved cells as the fusion of a recipe.

    If ``weights`` contains ``merged``, the cells are combined with the retrievers' merge score.

    Args:
        weights: weights of the recipe: those with which the cells were trained, and optionally a weight of ``merged``.
        folder: folder that :meth:`SessionCells.save` wrote.
        version: expected version of the saved cells.

    Raises:
        ArtifactError: the cells in the folder have a different version.
        ConfigError: the weights differ from those with which the cells were trained.
    """
    cells = SessionCells.load(folder)
    if cells.version != version:
        raise ArtifactError(
            "The folder contains cells of a different version.",
            where=folder,
            expected=f"version {version}",
            found=f"version {cells.version}",
            fix="set the version to that of the cells in the folder, or save the cells again",
        )
    own = {task: weight for task, weight in weights.items() if task != "merged"}
    if own != cells.settings.weights:
        raise ConfigError(
            "The weights of the recipe differ from those of the saved cells.",
            where="recommend.fusion_weights",
            expected=str(cells.settings.weights),
            found=str(own),
        )
    return BesideMerge(cells, sum(own.values()), weights["merged"]) if "merged" in weights else cells
