"""The framework that compares one component with its baselines, in the world that it is made for and in that world's
twin.

A module of this package defines ``COMPONENT``, a :class:`Component`, and is found by its file name. Everything that
decides the comparison is stated there before anything runs: arms, the configurations of each, the metric with its
direction, seeds, world and twin. All arms have the same number of configurations. One of them is chosen for each seed
and place by the arm's own score on validation data. The numbers of parameters of all arms are reported and compared.
If the episodes of a component are expensive, configurations are chosen once for all seeds and places, in a world with
a seed of its own, where the score is the deciding metric. Differences are paired by seed, with an interval of
Student's t. ``BENCH_WORKERS`` processes share the seeds and places; results do not depend on their number.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from typing import Any, Literal

import numpy as np

from benchmarks.harness import Result
from taiji.core.errors import ConfigError
from taiji.core.progress import track
from taiji.metrics.exact import student_quantile

WORLD, TWIN = "world", "twin"
PARAMETERS = 1.25
"""Largest ratio between the numbers of parameters of any two arms, if ``same_parameters`` is True."""


@dataclass(frozen=True)
class Outcome:
    """One run of one arm.

    Attributes:
        validation: score by which configurations are chosen, on data that no metric uses; higher is better.
        metrics: values by name, on test data or in a closed loop.
        parameters: number of learnt parameters.
    """

    validation: float
    metrics: Mapping[str, float]
    parameters: int = 0


@dataclass(frozen=True)
class Arm:
    """One of the methods that are compared.

    Attributes:
        run: function from (data of a place, configuration, seed) to the outcome.
        configurations: configurations to try; all arms of a component have the same number.
    """

    run: Callable[[Any, Mapping[str, Any], int], Outcome]
    configurations: Sequence[Mapping[str, Any]] = ({},)


@dataclass(frozen=True)
class Component:
    """One system, its baselines, and the claim.

    Attributes:
        claim: the claim, in one sentence.
        metric: metric that decides.
        direction: better direction of the metric.
        arms: arms by name; the first is the component, the second the deciding baseline, the others are only
            reported.
        data: function from (place, seed, quick) to the data of the arms, for the places ``world`` and ``twin``.
        seeds: number of seeds of a whole run, at least 5.
        quick_seeds: number of seeds of a quick run, which decides nothing.
        same_parameters: whether the arms must keep to :data:`PARAMETERS`.
        exact: checks that need no world (identities, costs), run first.
        tuning: seed of the world in which configurations are chosen once for all seeds and places; None chooses them
            for each seed and place.
        fails: places in which the component must be worse than the deciding baseline, with an interval that excludes
            zero.
    """

    claim: str
    metric: str
    arms: Mapping[str, Arm]
    data: Callable[[str, int, bool], Any]
    direction: Literal["higher", "lower"] = "higher"
    seeds: int = 5
    quick_seeds: int = 2
    same_parameters: bool = True
    exact: Callable[[Result, bool], None] | None = None
    places: tuple[str, ...] = field(default=(WORLD, TWIN))
    tuning: int | None = None
    fails: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        sizes = {name: len(arm.configurations) for name, arm in self.arms.items()}
        if len(set(sizes.values())) > 1:
            raise ConfigError(
                "The arms of a component do not have the same number of configurations.",
                where=self.claim,
                expected="the same number of configurations for each arm",
                found=str(sizes),
            )
        if len(self.arms) == 1 or (self.seeds < 5 and self.arms):
            raise ConfigError(
                "A component has no baseline, or too few seeds.",
                where=self.claim,
                expected="a baseline, and at least five seeds",
                found=f"arms {', '.join(self.arms)}; {self.seeds} seeds",
            )


def components() -> dict[str, Component]:
    """Return all components by the names of their modules."""
    package = importlib.import_module("benchmarks.components")
    found = {}
    for module in sorted(entry.name for entry in pkgutil.iter_modules(package.__path__)):
        if module != "__main__" and (
            made := getattr(importlib.import_module(f"{package.__name__}.{module}"), "COMPONENT", None)
        ):
            found[module] = made
    return found


def interval(differences: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean and the bounds of the interval of paired differences, one per seed."""
    values = np.asarray(differences, dtype=np.float64)
    half = student_quantile(0.95, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)


def tuned(arm: Arm, data: Any, seed: int) -> Outcome:
    """Return the outcome of the arm's configuration with the best validation score."""
    return max((arm.run(data, configuration, seed) for configuration in arm.configurations), key=lambda o: o.validation)


def chosen(name: str, component: Component, result: Result, quick: bool) -> Component:
    """Return the component with one configuration per arm if ``tuning`` is set, and add the scores to the rows."""
    if component.tuning is None or quick:
        return component
    tasks = [(arm,) for arm, own in component.arms.items() if any(own.configurations)]
    scores = {arm: [0.0] for arm in component.arms}
    for (arm,), found in zip(tasks, _mapped(_scores, name, component, tasks)):
        scores[arm] = found
        for configuration, score in zip(component.arms[arm].configurations, found):
            told = {"component": name, "place": "tuning", "arm": arm, "metric": component.metric, "value": score}
            result.rows.append(told | {"configuration": str(configuration)})
    result.so_far()
    sign = 1.0 if component.direction == "higher" else -1.0
    best = {arm: int(np.argmax(sign * np.array(found))) for arm, found in scores.items()}
    arms = {arm: Arm(own.run, (own.configurations[best[arm]],)) for arm, own in component.arms.items()}
    return replace(component, arms=arms)


def _scores(name: str, component: Component, arm: str) -> list[float]:
    assert component.tuning is not None
    data, own = component.data(WORLD, component.tuning, False), component.arms[arm]
    return [own.run(data, one, component.tuning).metrics[component.metric] for one in own.configurations]


def _outcomes(
    name: str,
    component: Component,
    configurations: Mapping[str, Sequence[Mapping[str, Any]]],
    place: str,
    seed: int,
    quick: bool,
) -> dict[str, Outcome]:
    data = component.data(place, seed, quick)
    found = {}
    for arm, own in configurations.items():
        found[arm] = tuned(Arm(component.arms[arm].run, own), data, seed)
        value = found[arm].metrics[component.metric]
        print(
            f"{name}  seed={seed}  place={place}  arm={arm}  {component.metric}={value:.5g}",
            file=sys.stderr,
            flush=True,
        )
    return found


def _in_worker(action: Callable[..., Any], name: str, task: tuple[Any, ...]) -> Any:
    """Run a task in another process, which finds the component by the name of its module, because arms cannot be
    pickled.
    """
    return action(name, importlib.import_module(f"benchmarks.components.{name}").COMPONENT, *task)


def _mapped(action: Callable[..., Any], name: str, component: Component, tasks: Sequence[tuple[Any, ...]]) -> list[Any]:
    workers = int(os.environ.get("BENCH_WORKERS", "1"))
    if workers == 1:
        return [action(name, component, *task) for task in track(tasks, "tasks", unit="tasks")]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return list(track(pool.map(partial(_in_worker, action, name), tasks), "tasks", total=len(tasks), unit="tasks"))


def measure(name: str, component: Component, result: Result, quick: bool) -> None:
    """Run a component and add its rows and checks to a result.

    A whole run checks that the interval of the difference from the deciding baseline excludes zero in the world, and
    includes it in the twin and in any further place.
    """
    if component.exact is not None:
        component.exact(result, quick)
    if not component.arms:
        return
    component = chosen(name, component, result, quick)
    seeds = component.quick_seeds if quick else component.seeds
    found: dict[tuple[str, str], list[Outcome]] = {}
    configurations = {
        arm: own.configurations[:1] if quick and component.tuning else own.configurations
        for arm, own in component.arms.items()
    }
    tasks = [(configurations, place, seed, quick) for seed in range(seeds) for place in component.places]
    for task, outcomes in zip(tasks, _mapped(_outcomes, name, component, tasks)):
        place = task[1]
        for arm, outcome in outcomes.items():
            found.setdefault((place, arm), []).append(outcome)
    own, *others = component.arms
    sign = 1.0 if component.direction == "higher" else -1.0
    for place in component.places:
        for arm_name in component.arms:
            outcomes = found[place, arm_name]
            for metric in outcomes[0].metrics:
                values = [outcome.metrics[metric] for outcome in outcomes]
                row = {
                    "component": name, "place": place, "arm": arm_name, "metric": metric, "value": float(np.mean(values)),
                    "parameters": outcomes[0].parameters, "seeds": seeds,
                }  # fmt: skip
                if arm_name != own:
                    ours = [outcome.metrics[metric] for outcome in found[place, own]]
                    row["component minus arm"], row["low"], row["high"] = interval(np.subtract(ours, values).tolist())
                result.rows.append(row)
    if component.same_parameters:
        sizes = {arm_name: found[component.places[0], arm_name][0].parameters for arm_name in component.arms}
        result.at_most(
            f"{name}: parameters of the largest arm over those of the smallest",
            max(sizes.values()) / max(1, min(sizes.values())),
            PARAMETERS,
        )
    if quick:  # too few seeds for a conclusion
        return
    for place in component.places:
        pairs = zip(found[place, own], found[place, others[0]])
        differences = [sign * (a.metrics[component.metric] - b.metrics[component.metric]) for a, b in pairs]
        _, low, high = interval(differences)
        if place == WORLD:
            result.at_least(f"{name}: {component.claim}; low end of the gain in {component.metric}", low, 1e-9)
        elif place in component.fails:
            result.at_most(f"{name}: high end of the gain in the {place}", high, -1e-9)
        else:
            result.at_most(f"{name}: low end of the gain in the {place}", low, 0.0)
