"""Does a monotone ensemble of predictions with personal weights (UMRE) order items better than averaged ranks?

Data come from a formula, not from a simulated log: slates of ten items with three predictions each, and clicks drawn from the item's
*value*. In the world, the value is a non-linear function of the predictions that differs between users; in the twin, it
is the mean of the predictions' ranks within the slate.

Metric: Spearman's correlation of the score with the value, within slates. Arms: ``ensemble``; ``averaged ranks``, the
deciding baseline, because learnt fusions lost to it elsewhere; ``regression``, a linear regression of clicks on the
predictions; ``personal regression``, whose weights depend on the user (IntEL's idea). Each arm's configuration is
chosen by the correlation of scores with clicks on validation slates. :mod:`benchmarks.components.comparison` explains
the columns, the checks, and what is held equal for all arms. The numbers of parameters differ.

In a first run, the value in the twin was the mean of the predictions themselves. It was not a negative control, because
ranks among ten candidates represent this mean only coarsely: the ensemble led averaged ranks by 0.049 (0.041 to 0.058),
and lost to plain regression by 0.024 (0.015 to 0.034).

The exact part counts the *violations*: pairs in which the score falls when one prediction is raised.

    python -m benchmarks.components --only monotone_ensemble [--quick]
        [--json benchmarks/results/monotone_ensemble.json]
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.components.comparison import WORLD, Arm, Component, Outcome
from benchmarks.components.world_slates import within_slates
from benchmarks.harness import Result
from taiji.core.component import Requests
from taiji.models.fusion.learnt_fusion import FusionRows
from taiji.models.fusion.monotone_ensemble import MonotoneEnsemble, MonotoneEnsembleSettings
from taiji.models.fusion.weighted import RankAverage

Array = NDArray[Any]
TASKS = ("click", "like", "share")
Data = tuple[FusionRows, FusionRows, FusionRows, Array]


def data(place: str, seed: int, quick: bool) -> Data:
    """Return training, validation and test slates, and the values of the test slates."""
    random = np.random.default_rng([seed, 3])
    slates = 200 if quick else 1000
    kind = random.uniform(-1, 1, slates)
    values = random.random((slates, 10, 3))
    if place == WORLD:
        share = np.stack([1 + 0.9 * kind, 1 - 0.9 * kind, np.ones(slates)], axis=1)[:, None] / 3
        worth = (share * np.stack([values[..., 0] ** 4, np.sqrt(values[..., 1]), values[..., 2] ** 2], axis=2)).sum(
            axis=2
        )
    else:
        worth = np.argsort(np.argsort(values, axis=1), axis=1).mean(axis=2) / (values.shape[1] - 1)
    label = (random.random(worth.shape) < worth).astype(float)
    requests = Requests(np.arange(slates), np.arange(slates), {"kind": kind})
    rows = FusionRows(requests, {t: values[..., k] for k, t in enumerate(TASKS)}, {"click": label})
    a, b = slates // 2, slates * 3 // 4
    return rows.take(slice(0, a)), rows.take(slice(a, b)), rows.take(slice(b, slates)), worth[b:]


def outcome(scores: Any, slates: Data, parameters: int) -> Outcome:
    """Return the outcome of ``scores``, a function from rows to scores (B, M)."""
    _, validation, test, worth = slates
    return Outcome(
        float(np.corrcoef(scores(validation).ravel(), validation.labels["click"].ravel())[0, 1]),
        {"spearman": within_slates(scores(test), worth)},
        parameters,
    )


def ensemble(slates: Data, configuration: Mapping[str, Any], seed: int) -> Outcome:
    """Run the monotone ensemble."""
    base = {
        "weights": dict.fromkeys(TASKS, 1.0),
        "columns": ["kind"],
        "epochs": 20,
        "batch": 32,
        "rate": 0.01,
        "grid": 9,
        "width": 8,
    }
    fuser = MonotoneEnsemble(MonotoneEnsembleSettings.model_validate({**base, **configuration})).fit(
        slates[0], seed=seed
    )
    size = sum(value.size for value in fuser.weights().values())
    return outcome(lambda rows: fuser.fuse(rows.predictions, rows.requests), slates, size)


def ranks(slates: Data, configuration: Mapping[str, Any], seed: int) -> Outcome:
    """Run averaged ranks with the weights of the configuration."""
    fuser = RankAverage(configuration["weights"])
    return outcome(lambda rows: fuser.fuse(rows.predictions, rows.requests), slates, len(TASKS))


def regression(personal: bool) -> Any:
    """Return the function that runs a ridge regression of clicks on predictions, with or without weights that depend on
    ``kind``."""

    def features(rows: FusionRows) -> Array:
        x = np.stack([rows.predictions[task] for task in TASKS], axis=2)
        kind = rows.requests.columns["kind"][:, None, None]
        parts = [
            x,
            *((x * kind, np.broadcast_to(kind, x[..., :1].shape)) if personal else ()),
            np.ones_like(x[..., :1]),
        ]
        return np.concatenate(parts, axis=2)

    def run(slates: Data, configuration: Mapping[str, Any], seed: int) -> Outcome:
        x = features(slates[0])
        flat, y = x.reshape(-1, x.shape[2]), slates[0].labels["click"].ravel()
        weights = np.linalg.solve(flat.T @ flat + configuration["penalty"] * np.eye(x.shape[2]), flat.T @ y)
        return outcome(lambda rows: features(rows) @ weights, slates, len(weights))

    return run


def violations(result: Result, quick: bool) -> None:
    """Count the scores that fall when one prediction is raised, in about a million pairs (fewer in a quick run)."""
    random = np.random.default_rng(0)
    fuser = MonotoneEnsemble(
        MonotoneEnsembleSettings(weights=dict.fromkeys(TASKS, 1.0), columns=("kind",), epochs=3, grid=9, width=8)
    ).fit(data(WORLD, 0, True)[0])
    bad = pairs = 0
    for _ in range(1 if quick else 12):
        requests = Requests(np.arange(1000), np.arange(1000), {"kind": random.uniform(-3, 3, 1000)})
        values = random.uniform(-0.2, 1.2, (1000, 30, 3))
        before = fuser.score(values, requests)
        for task in range(3):
            raised = values.copy()
            raised[..., task] += 10.0 ** random.uniform(-16, 0, before.shape)
            bad, pairs = bad + int((fuser.score(raised, requests) < before).sum()), pairs + before.size
    result.rows.append({"component": "monotone_ensemble", "metric": "violations", "value": bad, "pairs": pairs})
    result.at_most(f"monotone_ensemble: violations in {pairs} pairs", bad, 0)


COMPONENT = Component(
    claim="a monotone ensemble with personal weights orders items by value better than averaged ranks",
    metric="spearman",
    arms={
        "ensemble": Arm(ensemble, ({"rate": 0.01}, {"rate": 0.003})),
        "averaged ranks": Arm(
            ranks, tuple({"weights": dict(zip(TASKS, w))} for w in ((1.0, 1.0, 1.0), (1.0, 1.0, 2.0)))
        ),
        "regression": Arm(regression(False), ({"penalty": 1.0}, {"penalty": 100.0})),
        "personal regression": Arm(regression(True), ({"penalty": 1.0}, {"penalty": 100.0})),
    },
    data=data,
    same_parameters=False,
    exact=violations,
)
