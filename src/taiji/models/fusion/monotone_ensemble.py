"""Monotone ensemble of predictions with weights per request (UMRE, arXiv 2508.07613).

The score is Σ w_k(h) · t_k(x_k; h) for predictions x_k and attributes h of the request, where t_k is an exact integral
of a positive function and w_k > 0. The weights come from attention between h and learnt vectors of the tasks. In the
paper, the weights depend on the transformed predictions as well, by cross-attention. With such weights, the score would
not be monotone.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from torch import nn

from taiji.core.component import Requests
from taiji.core.settings import Settings as Base
from taiji.metrics.concordance import grouped_concordance
from taiji.models.fusion.learnt_fusion import FusionRows, FusionSettings, LearntFusion
from taiji.nn.monotone import MonotoneFunctions
from taiji.nn.normal_scale import normal_scores, scale_knots
from taiji.nn.weighting_rules import Feedback, Observation, RuleOptions

Array = NDArray[Any]


class MonotoneEnsembleSettings(FusionSettings):
    """Settings of the monotone ensemble."""

    columns: tuple[str, ...] = ()
    """Attributes of a request: numeric columns of the requests or users, each with one number per request."""
    users: int = Field(default=0, ge=0)
    """Number of rows in the table of learnt user vectors. The row of a user is the user's dense id modulo this number.
    0 for no table."""
    dimension: PositiveInt = 8
    """Length of user vectors and task vectors."""
    grid: int = Field(default=17, ge=2)
    """Number of points at which an integrand is parametrised."""
    width: PositiveInt = 32
    epochs: PositiveInt = 20
    batch: PositiveInt = 128
    """Number of slates per step."""
    rate: float = Field(default=5e-3, gt=0)
    feedback: float = Field(default=0.1, ge=0)
    """Step by which the logarithm of a label's weight changes after each epoch: it is raised if the label's UAUC (AUC
    within users) fell, and lowered if the UAUC rose. With 0, the weights stay as in `weights`."""
    validation: float = Field(default=0.2, gt=0, lt=1)
    """Share of the slates, taken from the end, that is held out to measure UAUC."""


class EnsembleNetwork(nn.Module):
    """Network that computes Σ_k w_k t_k from K scaled predictions.

    Args:
        tasks: number of predictions K.
        columns: number of attributes of a request.
        settings: settings of the ensemble.
    """

    def __init__(self, tasks: int, columns: int, settings: MonotoneEnsembleSettings) -> None:
        super().__init__()
        known = columns + (settings.dimension if settings.users else 0)
        self.users = nn.Embedding(settings.users, settings.dimension) if settings.users else None
        if self.users is not None:
            nn.init.zeros_(self.users.weight)
        self.functions = MonotoneFunctions(tasks, known, settings.grid, settings.width)
        self.tasks = nn.Parameter(0.1 * torch.randn(tasks, settings.dimension))
        self.query = nn.Linear(known, settings.dimension) if known else None
        self.usual = nn.Parameter(torch.zeros(tasks))

    def forward(self, values: torch.Tensor, user: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """Return scores (B, M) of values (B, M, K) for users (B,) with attributes (B, C)."""
        told = columns
        if self.users is not None:
            own = self.users(user.clamp(min=0) % self.users.num_embeddings)
            told = torch.cat([columns, torch.where(user[:, None] < 0, 0.0, own)], dim=1)  # 0 for users not in the fit
        logits = self.usual
        if self.query is not None:
            logits = logits + self.query(told) @ self.tasks.T
        weights = torch.softmax(logits, dim=-1).expand(len(values), -1)
        risen = self.functions(values, told if self.query is not None else None)
        total = weights[:, None, 0] * risen[..., 0]
        for task in range(
            1, values.shape[2]
        ):  # one task at a time, so that all candidates' sums are rounded in the same order
            total = total + weights[:, None, task] * risen[..., task]
        return total


class MonotoneEnsemble(LearntFusion):
    """Fusion by Σ w_k(request) · t_k(prediction k; request), fitted to the weighted labels by least squares.

    The score never falls as a prediction rises. The fit begins with the label weights of the setting ``weights``, and
    adjusts them by the UAUC of each label on held-out slates.
    """

    Settings: ClassVar[type[Base]] = MonotoneEnsembleSettings
    settings: MonotoneEnsembleSettings

    def learn(self, rows: FusionRows, seed: int) -> None:
        """Fit the network. ``facts["label_weights"]`` holds the label weights before the fit and after each epoch."""
        s = self.settings
        values, known = self.stacked(rows.predictions), np.isfinite(self.stacked(rows.predictions)).all(axis=2)
        self.knots = [scale_knots(values[known, task]) for task in range(len(self.tasks))]
        labels = [task for task in self.tasks if task in rows.labels]
        known &= np.isfinite(self.reward(rows))
        told = np.stack([np.nan_to_num(np.asarray(rows.labels[task], np.float64)) for task in labels], axis=2)
        spread = np.maximum(told[known].std(axis=0), 1e-9)
        told = (told - told[known].mean(axis=0)) / spread
        # Each label is divided by its standard deviation, so its weight is multiplied by the same standard deviation.
        start = np.array([s.weights[task] for task in labels]) * spread
        self.learn_columns(s.columns, rows.requests)
        scaled, columns = (
            self._scaled(np.where(known[..., None], values, 0.0)),
            self.known_columns(s.columns, rows.requests),
        )
        rule = Feedback(len(labels), RuleOptions(initial=tuple(start), rate=s.feedback))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = EnsembleNetwork(len(self.tasks), columns.shape[1], s).double()
        optimiser = torch.optim.Adam(self.network.parameters(), lr=s.rate)
        random = np.random.default_rng(seed)
        held = max(1, round(s.validation * len(scaled))) if len(scaled) > 1 else 0
        fitted = len(scaled) - held
        x, user, c = torch.as_tensor(scaled), torch.as_tensor(rows.requests.user), torch.as_tensor(columns)
        y, there = torch.as_tensor(told), torch.as_tensor(known)
        self.facts = {"labels": labels, "label_weights": [rule.weights.tolist()]}
        for _ in range(s.epochs):
            omega = torch.as_tensor(rule.weights)
            for part in np.array_split(random.permutation(fitted), max(1, fitted // s.batch)):
                at = torch.as_tensor(part)
                error = (self.network(x[at], user[at], c[at]) - y[at] @ omega)[there[at]]
                loss = error.square().mean()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
            if s.feedback and held:
                with torch.inference_mode():
                    scores = self.network(x[fitted:], user[fitted:], c[fitted:]).numpy()
                rule.observe(
                    Observation(indicators=_uauc(scores, told[fitted:], known[fitted:], rows.requests.user[fitted:]))
                )
            self.facts["label_weights"].append(rule.weights.tolist())

    def score(self, values: Array, requests: Requests) -> Array:
        """Return the scores, (B, M)."""
        with torch.inference_mode():
            columns = torch.as_tensor(self.known_columns(self.settings.columns, requests))
            return np.asarray(
                self.network(
                    torch.as_tensor(self._scaled(values)), torch.as_tensor(self.known_users(requests)), columns
                ).numpy()
            )

    def weights(self) -> dict[str, Array]:
        """Return the network and the scales of the predictions."""
        found = {f"network.{name}": value.numpy() for name, value in self.network.state_dict().items()}
        return (
            found
            | {f"knots.{number}": knots for number, knots in enumerate(self.knots)}
            | {"usual": self.usual_columns}
        )

    def restore(self, weights: dict[str, Array]) -> None:
        """Restore the fusion from :meth:`weights`."""
        self.knots = [weights[f"knots.{number}"] for number in range(len(self.tasks))]
        self.usual_columns = weights.get("usual", np.zeros(len(self.settings.columns)))
        self.network = EnsembleNetwork(len(self.tasks), len(self.settings.columns), self.settings).double()
        own = {n.removeprefix("network."): torch.as_tensor(v) for n, v in weights.items() if n.startswith("network.")}
        self.network.load_state_dict(own)

    def _scaled(self, values: Array) -> Array:
        """Return predictions (B, M, K) scaled to the grid: three standard deviations to either side of the mean map to
        [0, 1]."""
        return np.stack([normal_scores(values[..., k], knots) / 6 + 0.5 for k, knots in enumerate(self.knots)], axis=2)


def _uauc(scores: Array, labels: Array, known: Array, users: Array) -> Array:
    """Return the concordance between scores (B, M) and each label (B, M, K), averaged over users, (K,).

    It is 0.5 for a label that has only one value for each user.
    """
    owner = np.broadcast_to(np.unique(users, return_inverse=True)[1][:, None], known.shape)[known]
    found = []
    for label in range(labels.shape[2]):
        each = grouped_concordance(owner, labels[known, label], scores[known], int(owner.max(initial=0)) + 1)
        each = each[np.isfinite(each)]
        found.append(float(each.mean()) if len(each) else 0.5)
    return np.array(found)
