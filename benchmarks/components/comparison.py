"""Framework that compares one component with its baselines, in the simulated world that it is made for and in that
world's twin.

A *world* has a mechanism that the component can use. In its *twin*, the negative control, this mechanism makes no
difference. A module of this package defines ``COMPONENT``, a :class:`Component`, and is found by its file name. It
states everything that decides the comparison before anything runs: *arms* (the component, its deciding baseline, and
other baselines), metric, configurations, seeds, and data of the *places* (world, twin, and further ones).

Held equal for the arms of a component: the data of each place and seed, the number of configurations, and, unless a
module says otherwise, the number of parameters, within a factor of 1.25. For each arm, seed and place, the
configuration with the best score on validation data is used. If runs are expensive (``tuning``), it is instead chosen
once for all seeds and places, in a world with a seed of its own, by the deciding metric.

Columns: ``component``, ``place``, ``arm`` and ``metric``; ``value``, the mean over seeds; ``parameters``; ``seeds``;
``component minus arm`` with ``low`` and ``high``, the difference paired by seed with Student's 95 % interval. Rows of
the place ``tuning`` have the score of each ``configuration``. Further rows come from a component's ``exact`` part,
which needs no world.

Checks of a full run: in the world, the interval of the component minus the deciding baseline lies above zero (below, if
lower is better); in other places it does not, and in those of ``fails`` it lies on the other side of zero. Quick runs
have too few seeds to decide anything. A full run of a component makes one run for each arm, seed (at least five) and
place, and, unless ``tuning`` is set, for each configuration.

``BENCH_WORKERS`` processes share seeds and places. Their number does not change the results.
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
"""Largest allowed ratio between the numbers of parameters of two arms, if ``same_parameters`` is True."""


@dataclass(frozen=True)
class Outcome:
    """Result of one run of one arm.

    Attributes:
        validation: score by which the configuration is chosen, on data that no metric uses; higher is better.
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
        configurations: configurations to try; all arms of a component have equally many.
    """

    run: Callable[[Any, Mapping[str, Any], int], Outcome]
    configurations: Sequence[Mapping[str, Any]] = ({},)


@dataclass(frozen=True)
class Component:
    """One component, its baselines, and the claim about them.

    Attributes:
        claim: the claim, in one sentence.
        metric: metric that decides.
        direction: better direction of the metric.
        arms: arms by name; the first is the component, the second the deciding baseline. The others are only reported.
        data: function from (place, seed, quick) to the data of the arms.
        seeds: number of seeds of a full run, at least 5.
        quick_seeds: number of seeds of a quick run, which decides nothing.
        same_parameters: True if the numbers of parameters of the arms must keep to :data:`PARAMETERS`.
        exact: checks that need no world (identities, costs), which are run first.
        places: names of the places.
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
    """Return the mean of paired differences, one per seed, and the bounds of Student's 95 % interval."""
    values = np.asarray(differences, dtype=np.float64)
    half = student_quantile(0.95, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)


def tuned(arm: Arm, data: Any, seed: int) -> Outcome:
    """Return the outcome of an arm in the configuration with the best validation score."""
    return max((arm.run(data, configuration, seed) for configuration in arm.configurations), key=lambda o: o.validation)


def chosen(name: str, component: Component, result: Result, quick: bool) -> Component:
    """Return the component with one configuration per arm if ``tuning`` is set, and add the scores of all
    configurations to the rows."""
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
    """Run a task in another process. It finds the component by the name of its module, because arms cannot be
    pickled."""
    return action(name, importlib.import_module(f"benchmarks.components.{name}").COMPONENT, *task)


def _mapped(action: Callable[..., Any], name: str, component: Component, tasks: Sequence[tuple[Any, ...]]) -> list[Any]:
    workers = int(os.environ.get("BENCH_WORKERS", "1"))
    if workers == 1:
        return [action(name, component, *task) for task in track(tasks, "tasks", unit="tasks")]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return list(track(pool.map(partial(_in_worker, action, name), tasks), "tasks", total=len(tasks), unit="tasks"))


def measure(name: str, component: Component, result: Result, quick: bool) -> None:
    """Run a component, and add its rows and checks to a result.

    A full run checks that the component is shown to be better than the deciding baseline in the world and in no other
    place, and that it is shown to be worse in the places of ``fails``.
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
