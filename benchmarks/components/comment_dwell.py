"""Do the texts of comments help to predict how long a user stays in the comments (LCU)?

In the world ``feed-with-comments``, comments on topics that a user likes keep the user there; in the twin, the topics
of comments attract nobody. ``lcu`` reads titles and comments. It is trained with a weighted logistic loss of the
seconds and two auxiliary losses, which teach it which comment is clicked and how the comments are ordered by
popularity.

Metric: XAUC of the predicted seconds, the share of all pairs of test rows with different stays that are ordered
correctly. XAUC within requests and the mean absolute error are also reported. Arms: ``titles alone``, the deciding
baseline, does not read the comments; ``no auxiliary losses``, ``no order of comments`` and ``no clicked comment`` omit
both auxiliary losses or one of them; ``squared error`` uses the squared error of the logarithm instead of the weighted
logistic loss. :mod:`benchmarks.components.comparison` explains the columns, the checks, and what is held equal for all
arms.

The exact part checks, for a model that cannot distinguish rows, that the predicted expected stay equals the mean stay.

    python -m benchmarks.components --only comment_dwell [--quick] [--json benchmarks/results/comment_dwell.json]
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from benchmarks.components.comparison import Arm, Component, Outcome
from benchmarks.components.ranking_worlds import TRAINING, RankingLog, dense_parameters, ranking_log
from benchmarks.harness import Result
from taiji.metrics.ranking_metrics import Rows
from taiji.metrics.value_metrics import MAE, XAUC, RequestXAUC
from taiji.models.ranking.comment_dwell import (
    CommentDwellLoss,
    CommentDwellNetwork,
    CommentDwellRanker,
    log_expected_stay,
    stay_loss,
)

STAY = "comment_seconds"
RATES = ({"learning_rate": 2e-3}, {"learning_rate": 6e-3})
SHARED = {
    **TRAINING, "min_steps": 100, "hidden": (32,), "pair_fields": (), "device": "cpu", "bins": 3, "dimension": 4, "embedder": "wordllama",
    "cross_layers": 2, "tasks": ("click", STAY, "comment_place"),
}  # fmt: skip


class Titles(CommentDwellNetwork):
    """Network with equally many weights, which does not read the comments."""

    def told(self, numbers: torch.Tensor) -> torch.Tensor:
        """Return the components of the title, and zeros instead of those of the comments."""
        found = super().told(numbers)
        return torch.cat([found[:, :1], torch.zeros_like(found[:, 1:])], dim=1)


class TitlesRanker(CommentDwellRanker):
    """Ranker with the network :class:`Titles`."""

    network_class = Titles


class SquaredError(CommentDwellLoss):
    """Loss with the squared difference between the network's output for the stay and log(1 + seconds)."""

    def stay_terms(self, outputs: torch.Tensor, seconds: torch.Tensor) -> torch.Tensor:
        """Return the loss of each row."""
        return 0.5 * (outputs[:, self.column] - torch.log1p(seconds)).square()


class SquaredErrorRanker(CommentDwellRanker):
    """Ranker with the loss :class:`SquaredError`."""

    def build(self, *arguments: Any, **named: Any) -> SquaredErrorRanker:
        """Make the network, and the loss of this arm."""
        super().build(*arguments, **named)
        self.loss = SquaredError(self.tasks, self.settings)
        return self


def arm(kind: type[CommentDwellRanker], **fixed: Any) -> Arm:
    """Return an arm of a ranker. Its configuration is chosen by the XAUC of validation rows."""

    def run(data: RankingLog, configuration: Mapping[str, Any], seed: int) -> Outcome:
        ranker = kind(kind.Settings(**{**SHARED, **fixed, **configuration}))
        ranker.fit(data.dataset, data.train, valid=data.valid, seed=seed)

        def quality(rows: Any) -> dict[str, float]:
            seconds = ranker.predict(rows)[STAY].to_numpy()
            made = Rows.of(
                rows["user"].to_numpy(), rows[STAY].to_numpy(), seconds, rows["time"].to_numpy(), kind="duration"
            )
            return {metric.name: metric.calc(made) for metric in (XAUC(), RequestXAUC(), MAE())}

        return Outcome(quality(data.valid)["xauc"], quality(data.test), dense_parameters(ranker.network))

    return Arm(run, RATES)


def exact(result: Result, quick: bool) -> None:
    """Compare two predictions of a model of one parameter, the expected stay E[T] and the odds alone (the exponential
    of the parameter), with the mean of drawn stays T.

    One stay in eight is above 0 seconds.
    """
    random = torch.Generator().manual_seed(0)
    opened = torch.rand(20_000, generator=random).double() < 0.125
    seconds = torch.where(opened, -12 * torch.rand(20_000, generator=random).double().log(), 0.0)
    stay = (seconds.sum() / (~opened).sum()).log().requires_grad_()
    (slope,) = torch.autograd.grad(stay_loss(stay.expand(len(seconds)), seconds).mean(), stay)
    expected = log_expected_stay(stay.detach(), torch.logit(opened.double().mean())).exp()
    result.at_most("comment_dwell: slope of the loss at the optimum", abs(float(slope)), 1e-12)
    result.at_most(
        "comment_dwell: relative difference of E[T] from the mean stay",
        abs(float(expected / seconds.mean()) - 1),
        1e-12,
    )
    row = {"component": "comment_dwell", "metric": "odds alone over the mean stay"}
    result.rows.append({**row, "value": float(stay.detach().exp() / seconds.mean())})


COMPONENT = Component(
    claim="texts of comments help to predict how long a reader stays",
    metric="xauc",
    arms={
        "lcu": arm(CommentDwellRanker),
        "titles alone": arm(TitlesRanker),
        "no auxiliary losses": arm(CommentDwellRanker, click_weight=0.0, popularity_weight=0.0),
        "no order of comments": arm(CommentDwellRanker, popularity_weight=0.0),
        "no clicked comment": arm(CommentDwellRanker, click_weight=0.0),
        "squared error": arm(SquaredErrorRanker),
    },
    data=ranking_log(
        "feed-with-comments",
        "comments.match",
        users=300,
        items=250,
        days=8,
        quick_users=20,
        quick_items=60,
        quick_days=4,
    ),
    exact=exact,
)
