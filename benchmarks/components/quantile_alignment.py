"""Do ranks among videos of similar duration (AlignPxtr) reflect a user's interest better than predicted seconds?

In the world ``short-video``, long videos are watched longer regardless of interest; in the twin, they are not. A linear
model of public information predicts the watch time.

Metric: Spearman's correlation, within slates, of the aligned prediction with the unbiased interest, which the world
knows. Arms: ``quantiles``; ``raw``, the deciding baseline, the prediction itself; ``D2Q`` (rank within a group of
similar duration), ``WTG`` (distance from the group's mean in standard deviations) and ``ratio`` (to the group's mean).
Each arm's configuration is chosen by the same correlation on validation slates. Also reported: ``mutual information``
with the duration, in nats, and ``order kept``, the share of pairs of similar duration that alignment leaves in their
order. :mod:`benchmarks.components.comparison` explains the columns, the checks, and what is held equal for all arms.
Numbers of parameters are not compared.

The exact part draws predictions by a formula, in one world whose taste is independent of the duration (``planted``) and
in one where it is not (``violates independence``). It checks that the aligned prediction shares almost no information
with the duration in either.

    python -m benchmarks.components --only quantile_alignment [--quick]
        [--json benchmarks/results/quantile_alignment.json]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from benchmarks.components.comparison import TWIN, Arm, Component, Outcome
from benchmarks.components.world_slates import Slates, collect, within_slates
from benchmarks.harness import Result
from taiji.core.component import Requests
from taiji.metrics.independence import mutual_information, order_kept
from taiji.models.fusion.grouped_alignment import GroupedAlignment, GroupedAlignmentSettings
from taiji.models.fusion.learnt_fusion import FusionRows, LearntFusion
from taiji.models.fusion.quantile_alignment import QuantileAlignment, QuantileAlignmentSettings
from taiji.world import World

Data = tuple[Slates, Slates, Slates]
TRUTH = "unbiased_interest"
ONE = {"watch": 1.0}


def data(place: str, seed: int, quick: bool) -> Data:
    """Return training, validation and test slates."""
    world = World("short-video", seed, users=300, items=400, days=14)
    if place == TWIN:
        world = world.twin("watch")
    return collect(world, slates=450 if quick else 1800, warm=400 if quick else 1200, seed=seed)


def arm(make: Callable[[Mapping[str, Any]], LearntFusion | None]) -> Callable[[Data, Mapping[str, Any], int], Outcome]:
    """Return the function that runs an arm: fit a fuser, and measure its scores. If ``make`` returns None, the raw
    prediction is measured."""

    def run(slates: Data, configuration: Mapping[str, Any], seed: int) -> Outcome:
        fit, validation, test = slates
        fuser = make(configuration)
        if fuser is not None:
            fuser.fit(fit.rows, seed=seed)

        def scores(part: Slates) -> Any:
            rows = part.rows
            return rows.predictions["watch"] if fuser is None else fuser.fuse(rows.predictions, rows.requests)

        found = scores(test)
        values, duration = found.ravel(), test.rows.requests.columns["duration"].ravel()
        return Outcome(
            within_slates(scores(validation), validation.truth[TRUTH]),
            {
                "spearman": within_slates(found, test.truth[TRUTH]),
                "mutual information": mutual_information(values, duration, bins=10),
                "order kept": order_kept(test.rows.predictions["watch"].ravel(), values, duration, bins=200),
            },
        )

    return run


def grouped(form: str) -> Arm:
    """Return an arm of grouped alignment."""

    def make(configuration: Mapping[str, Any]) -> LearntFusion:
        return GroupedAlignment(
            GroupedAlignmentSettings.model_validate({"weights": ONE, "form": form, **configuration})
        )

    return Arm(arm(make), ({"groups": 10}, {"groups": 30}))


def quantiles(configuration: Mapping[str, Any]) -> LearntFusion:
    """Return the fuser that is the component."""
    return QuantileAlignment(
        QuantileAlignmentSettings.model_validate(
            {"weights": ONE, "numbers": ["duration"], "steps": 300, "batch": 512, **configuration}
        )
    )


def planted(result: Result, quick: bool) -> None:
    """Measure the dependence on the duration and the correlation with taste in two worlds drawn by a formula: with
    independent taste, and with taste that grows with the duration."""
    slates = 300 if quick else 1000
    for place, dependence in (("planted", 0.0), ("violates independence", 0.6)):
        random = np.random.default_rng(7)
        size = random.normal(size=(2 * slates, 10))
        taste = dependence * size + np.sqrt(1 - dependence**2) * random.normal(size=size.shape)
        watch = np.exp(0.8 * size + 4 + (0.3 + 0.1 * np.tanh(size)) * taste)
        requests = Requests(np.arange(2 * slates), np.arange(2 * slates), {"duration": np.exp(4 + 0.8 * size)})
        rows = FusionRows(requests, {"watch": watch}, {})
        fit, test = rows.take(slice(0, slates)), rows.take(slice(slates, 2 * slates))
        fusers: dict[str, LearntFusion] = {"quantiles": quantiles({"steps": 600})}
        for form in ("rank", "gain", "ratio"):
            settings = {"weights": ONE, "form": form, "groups": 30}
            fusers[form] = GroupedAlignment(GroupedAlignmentSettings.model_validate(settings))
        found = {"raw": test.predictions["watch"]}
        found |= {name: fuser.fit(fit).fuse(test.predictions, test.requests) for name, fuser in fusers.items()}
        for name, scores in found.items():
            information = mutual_information(scores.ravel(), test.requests.columns["duration"].ravel())
            result.rows.append(
                {
                    "component": "quantile_alignment", "place": place, "arm": name, "mutual information": information,
                    "spearman with taste": within_slates(scores, taste[slates:]),
                }
            )  # fmt: skip
            if name == "quantiles":
                result.at_most(
                    f"quantile_alignment, {place}: mutual information with the duration, in nats", information, 0.02
                )


COMPONENT = Component(
    claim="ranks among similar durations reflect the interest better than predicted seconds",
    metric="spearman",
    arms={
        "quantiles": Arm(arm(quantiles), ({"rate": 0.02}, {"rate": 0.005})),
        "raw": Arm(arm(lambda configuration: None), ({}, {})),
        "D2Q": grouped("rank"),
        "WTG": grouped("gain"),
        "ratio": grouped("ratio"),
    },
    data=data,
    same_parameters=False,
    exact=planted,
)
