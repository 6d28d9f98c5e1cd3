"""Monotone cells whose outer functions are set by a policy over the state of the session, learnt from session returns
(xMTF's outer stage).

The inner functions are fitted to the order of the logged labels (``monotone_cells.py``). The policy sets the slopes of
the outer functions per request, to increase the return over the rest of the session. Then the inner functions are
fitted to the order that the policy produces, and the policy is reset to neutral. State and action are the same for all
candidates of a request, so the score still never falls as a prediction rises.
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
    """State that the policy sees: numeric columns of the requests or users. Predictions are not permitted."""
    spread: float = Field(default=1.0, gt=0)
    """Standard deviation of the policy parameters that are drawn for exploration."""
    policy_rate: float = Field(default=10.0, gt=0)
    """Step size of the policy for standardised returns."""


class SessionCells(MonotoneCells):
    """Cells with a policy over the outer functions. After :meth:`fit` the policy is still neutral.

    Attributes:
        policy: policy whose output is, for each outer function, the log of the factor that multiplies its slope.
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
        """Return actions (B, K) from drawn parameters (B, K, S + 1) of the requests' sessions, or from the policy's own
        parameters.

        With action a, the slope at q = 1 is 1 + 2 a. The policy multiplies it by e^u, so that the slope stays positive.
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
        """Return the state of the sessions (B, S), with its centre where a value is missing."""
        return filled(request_numbers(self.settings.state, requests, self.dataset), self.centre)


def saved_session_cells(weights: Mapping[str, float], *, folder: str, version: str) -> Fuser:
    """Load saved cells as the fusion of a recipe, combined with the retrievers' merge score if ``weights`` contains
    ``merged``.

    Args:
        weights: weights of the recipe: the weights with which the cells were trained, and optionally one for
            ``merged``.
        folder: folder that :meth:`SessionCells.save` wrote.
        version: expected version of the saved cells.

    Raises:
        ArtifactError: the folder contains different cells.
        ConfigError: the weights differ from those of the cells.
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
            "The recipe weights different predictions than the saved cells.",
            where="recommend.fusion_weights",
            expected=str(cells.settings.weights),
            found=str(own),
        )
    return BesideMerge(cells, sum(own.values()), weights["merged"]) if "merged" in weights else cells
