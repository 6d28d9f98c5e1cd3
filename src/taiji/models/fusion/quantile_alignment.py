"""Alignment of predictions by their conditional quantiles (AlignPxtr, arXiv 2503.06920), followed by a weighted sum.

Equal predictions for a long item and a short item are not comparable. Each prediction is therefore replaced by its rank
among the predictions under the same circumstances, for example for items of the same length. By construction, the
distribution of ranks does not depend on the circumstances. This does not prove that ranks are closer to the truth: if
the users' preferences depend on the circumstances, alignment removes this dependence as well. Ranks are not
probabilities, so they must not be used where calibration is needed (such as in an auction).
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from taiji.core.component import Predictions, Requests
from taiji.core.errors import ConfigError
from taiji.core.settings import Settings as Base
from taiji.models.fusion.learnt_fusion import FusionRows, FusionSettings, LearntFusion, as_numbers, circumstances
from taiji.models.learnt_component import known_values
from taiji.nn.conditional_quantiles import QuantileNetwork, fit_quantiles, interpolated_ranks
from taiji.nn.normal_scale import normal_scores, scale_knots

Array = NDArray[Any]


class QuantileAlignmentSettings(FusionSettings):
    """Settings of quantile alignment."""

    numbers: tuple[str, ...] = ()
    """Numeric circumstances, such as `duration`: columns of the requests, the items or the users."""
    categories: tuple[str, ...] = ()
    """Categorical circumstances: columns of the requests, the items or the users. An unseen or missing value matches no
    known value, so that the quantiles depend only on the other circumstances."""
    quantiles: int = Field(default=20, ge=3)
    """Number of quantile levels, which are evenly spaced in (0, 1)."""
    width: PositiveInt = 64
    steps: PositiveInt = 600
    batch: PositiveInt = 1024
    rate: float = Field(default=0.02, gt=0)


class QuantileAlignment(LearntFusion):
    """Fusion by Σ weight · rank of the prediction among the predictions under the same circumstances.

    The score never falls as a prediction rises, as long as the circumstances stay the same. The class can also be used
    as a debiaser, see :meth:`adjust`.
    """

    Settings: ClassVar[type[Base]] = QuantileAlignmentSettings
    settings: QuantileAlignmentSettings

    def __init__(self, settings: QuantileAlignmentSettings | None = None) -> None:
        super().__init__(settings)
        if not (self.settings.numbers or self.settings.categories):
            raise ConfigError(
                "Alignment needs at least one conditioning column.",
                where="numbers, categories",
                expected="the name of at least one column",
                found="none",
            )

    @property
    def levels(self) -> Array:
        """Levels (Q,) of the quantiles, ascending in (0, 1)."""
        return (np.arange(self.settings.quantiles) + 0.5) / self.settings.quantiles

    def learn(self, rows: FusionRows, seed: int) -> None:
        """Fit the quantiles of the predictions as functions of the circumstances."""
        values = self.stacked(rows.predictions)
        known = np.asarray(np.isfinite(values).all(axis=2))
        values = values[known]
        numbers, categories = self._circumstances(rows.requests, known.shape)
        self.knots = [scale_knots(values[:, task]) for task in range(len(self.tasks))]
        self.number_knots = [scale_knots(column[known]) for column in numbers]
        self.facts = {"categories": [known_values(column[known]) for column in categories]}
        scaled = np.stack([normal_scores(values[:, k], knots) for k, knots in enumerate(self.knots)], axis=1)
        s = self.settings
        self.network = fit_quantiles(
            self._features(numbers, categories)[known],
            scaled,
            self.levels,
            width=s.width,
            steps=s.steps,
            batch=s.batch,
            rate=s.rate,
            seed=seed,
        )

    def adjust(self, predictions: Predictions, requests: Requests) -> Predictions:
        """Return the predictions, with those of :attr:`tasks` replaced by their ranks in [0, 1]."""
        values = self.stacked(predictions)
        known = np.asarray(np.isfinite(values).all(axis=2))
        ranks = self.ranks(np.where(known[..., None], values, 0.0), requests)
        return {**predictions, **{t: np.where(known, ranks[..., k], np.nan) for k, t in enumerate(self.tasks)}}

    def ranks(self, values: Array, requests: Requests) -> Array:
        """Return the ranks (B, M, K) in [0, 1] of predictions (B, M, K)."""
        shape = values.shape[:2]
        features = self._features(*self._circumstances(requests, shape)).reshape(values.shape[0] * values.shape[1], -1)
        with torch.inference_mode():
            quantiles = self.network(torch.as_tensor(features)).numpy()
        flat = values.reshape(len(features), -1)
        parts = [
            interpolated_ranks(normal_scores(flat[:, k], knots), quantiles[:, k], self.levels)
            for k, knots in enumerate(self.knots)
        ]
        return np.stack(parts, axis=1).reshape(values.shape)

    def score(self, values: Array, requests: Requests) -> Array:
        """Return the weighted sum of the ranks, (B, M)."""
        return np.asarray(self.ranks(values, requests) @ np.array(list(self.settings.weights.values())))

    def weights(self) -> dict[str, Array]:
        """Return the network, and the normal scales of predictions and numeric circumstances."""
        found = {f"network.{name}": value.numpy() for name, value in self.network.state_dict().items()}
        found |= {f"knots.{number}": knots for number, knots in enumerate(self.knots)}
        return found | {f"number_knots.{number}": knots for number, knots in enumerate(self.number_knots)}

    def restore(self, weights: dict[str, Array]) -> None:
        """Restore the fusion from :meth:`weights`."""
        self.knots = [weights[f"knots.{number}"] for number in range(len(self.tasks))]
        self.number_knots = [weights[f"number_knots.{n}"] for n in range(len(self.settings.numbers))]
        inputs = len(self.number_knots) + sum(len(values) for values in self.facts["categories"])
        self.network = QuantileNetwork(inputs, len(self.tasks), len(self.levels), self.settings.width).double()
        own = {n.removeprefix("network."): torch.as_tensor(v) for n, v in weights.items() if n.startswith("network.")}
        self.network.load_state_dict(own)

    def _circumstances(self, requests: Requests, shape: tuple[int, int]) -> tuple[list[Array], list[Array]]:
        s, dataset = self.settings, self.dataset
        numbers = [as_numbers(circumstances(name, requests, shape, dataset)) for name in s.numbers]
        return numbers, [circumstances(name, requests, shape, dataset) for name in s.categories]

    def _features(self, numbers: list[Array], categories: list[Array]) -> Array:
        """Return the inputs (B, M, F): numbers on a normal scale (0 for missing numbers), and one-hot categories."""
        parts = [
            np.nan_to_num(normal_scores(column, knots))[..., None] for column, knots in zip(numbers, self.number_knots)
        ]
        for column, known in zip(categories, self.facts["categories"]):
            parts.append((column[..., None] == np.array(known)).astype(np.float64))
        return np.concatenate(parts, axis=-1)
