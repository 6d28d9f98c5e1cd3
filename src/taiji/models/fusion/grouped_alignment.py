"""Baselines that correct predictions for a confounder such as duration: predictions are compared only among candidates
with similar confounder values.

D2Q (Zhan et al., KDD 2022) uses the rank within the group. WTG (Zheng et al., 2022) uses the distance from the group's
mean in standard deviations of the group. Mean alignment uses the ratio to the group's mean. All three methods were
designed for labels and are applied to predictions here.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from taiji.core.component import Requests
from taiji.core.settings import Settings as Base
from taiji.models.fusion.learnt_fusion import FusionRows, FusionSettings, LearntFusion, as_numbers, circumstances

Array = NDArray[Any]
TINY = 1e-12


class GroupedAlignmentSettings(FusionSettings):
    """Settings of grouped alignment."""

    number: str = "duration"
    """Column of the requests, items or users that contains the confounder. Its quantiles divide the candidates into
    groups of about equal size."""
    groups: int = Field(default=20, ge=1)
    form: Literal["rank", "gain", "ratio"] = "rank"
    """Form in which a prediction is compared with its group: `rank` as in D2Q, `gain` as in WTG, or `ratio` to the
    group's mean."""
    points: int = Field(default=65, ge=2)
    """Number of quantiles stored per group, for `rank`."""


class GroupedAlignment(LearntFusion):
    """Fusion by Σ weight · (prediction relative to its group).

    The score never falls as a prediction rises. With the form `ratio`, this requires positive predictions.
    """

    Settings: ClassVar[type[Base]] = GroupedAlignmentSettings
    settings: GroupedAlignmentSettings

    def learn(self, rows: FusionRows, seed: int) -> None:
        """Compute the mean, standard deviation and quantiles of each group. The result is deterministic."""
        values = self.stacked(rows.predictions)
        known = np.isfinite(values).all(axis=2)
        by = as_numbers(circumstances(self.settings.number, rows.requests, known.shape, self.dataset))[known]
        there = by[np.isfinite(by)]
        places = np.linspace(0, 1, self.settings.groups + 1)[1:-1]
        self.edges = np.unique(np.quantile(there, places)) if len(there) else np.zeros(0)
        count = len(self.edges) + 2
        group, values = self._group(by, count - 1), values[known]
        self.means, self.deviations = np.zeros((count, len(self.tasks))), np.ones((count, len(self.tasks)))
        self.quantiles = np.zeros((count, len(self.tasks), self.settings.points))
        for number in range(count):
            own = values[group == number] if (group == number).any() else values
            self.means[number], self.deviations[number] = own.mean(axis=0), own.std(axis=0) + TINY
            self.quantiles[number] = np.quantile(own, np.linspace(0, 1, self.settings.points), axis=0).T

    def _group(self, by: Array, missing: int) -> Array:
        """Return the group of each value, or ``missing`` where a value is missing."""
        return np.where(np.isfinite(by), np.searchsorted(self.edges, by, side="right"), missing)

    def aligned(self, values: Array, requests: Requests) -> Array:
        """Return predictions (B, M, K) relative to their groups, (B, M, K)."""
        by = as_numbers(circumstances(self.settings.number, requests, values.shape[:2], self.dataset))
        group = self._group(
            by, len(self.means) - 1
        )  # the last group is that of missing values; fusions saved by earlier versions do not have such a group
        if self.settings.form == "gain":
            return np.asarray((values - self.means[group]) / self.deviations[group])
        if self.settings.form == "ratio":
            return np.asarray(values / (self.means[group] + TINY))
        out = np.empty(values.shape)
        places = np.linspace(0, 1, self.settings.points)
        for number in np.unique(group):
            for task in range(values.shape[2]):
                own = values[group == number, task]
                out[group == number, task] = np.interp(own, self.quantiles[number, task], places)
        return out

    def score(self, values: Array, requests: Requests) -> Array:
        """Return the weighted sum of the aligned predictions, (B, M)."""
        return np.asarray(self.aligned(values, requests) @ np.array(list(self.settings.weights.values())))

    def weights(self) -> dict[str, Array]:
        """Return the edges and the statistics of the groups."""
        return {name: getattr(self, name) for name in ("edges", "means", "deviations", "quantiles")}

    def restore(self, weights: dict[str, Array]) -> None:
        """Restore the fusion from :meth:`weights`."""
        self.edges, self.means = weights["edges"], weights["means"]
        self.deviations, self.quantiles = weights["deviations"], weights["quantiles"]
