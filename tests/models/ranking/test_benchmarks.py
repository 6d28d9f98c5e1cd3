"""The room's benchmarks in their quick form, so that none rots."""

from dataclasses import replace

import pytest
from benchmarks.components.comparison import Arm, Component, Outcome, components, interval, measure
from benchmarks.harness import Result
from tests.quick import run_quick

from taiji.core.errors import ConfigError, ResourceError


@pytest.mark.integration
@pytest.mark.parametrize(
    ("name", "needs"),
    [
        ("ranking", ("torch_rechub", "lightgbm")),
        pytest.param("ranking_stream", (), marks=pytest.mark.slow),
        pytest.param("semantic_anchors", ("wordllama",), marks=pytest.mark.slow),
    ],
)
def test_quick_run_holds_its_checks(name, needs, tmp_path):
    for package in needs:
        pytest.importorskip(package)
    run_quick(name, tmp_path)


class Coin:
    """An arm whose outcome is its configuration's value, plus what the place gives it."""

    def __init__(self, gain):
        self.gain, self.asked = gain, []

    def __call__(self, data, configuration, seed):
        self.asked.append((data, configuration["value"], seed))
        value = configuration["value"] + seed + (self.gain if data == "world" else 0.0)
        return Outcome(configuration["value"], {"score": value}, parameters=10)


def component(gain, **changes):
    own, other = Coin(gain), Coin(0.0)
    tried = ({"value": 1.0}, {"value": 2.0})
    made = Component(
        claim="a coin gains",
        metric="score",
        arms={"own": Arm(own, tried), "other": Arm(other, tried)},
        data=lambda place, seed, quick: place,
        **changes,
    )
    return made, own


def test_a_component_is_held_to_its_gain_in_the_world_and_to_none_in_the_twin():
    result = Result()
    made, own = component(0.5)
    measure("coin", made, result, quick=False)
    assert all(check.holds for check in result.checks) and len(result.checks) == 3
    assert len(own.asked) == 5 * 2 * 2  # seeds, places, configurations
    rows = {(row["place"], row["arm"]): row for row in result.rows}
    assert rows["world", "own"]["value"] == 2.0 + 2.0 + 0.5  # the configuration with the better validation score
    assert rows["world", "other"]["component minus arm"] == pytest.approx(0.5)
    assert rows["twin", "other"]["component minus arm"] == 0.0


@pytest.mark.parametrize(
    ("gain", "direction", "failing"),
    [(0.0, "higher", 1), (0.5, "lower", 1), (-0.5, "lower", 0)],
    ids=["no gain", "a gain where less is better", "less where less is better"],
)
def test_no_gain_or_one_in_the_wrong_direction_fails(gain, direction, failing):
    result = Result()
    measure("coin", component(gain, direction=direction)[0], result, quick=False)
    assert sum(not check.holds for check in result.checks) == failing


def test_a_quick_run_decides_nothing_and_larger_arms_are_told():
    result = Result()
    made, _ = component(0.0)
    larger = Arm(
        lambda data, configuration, seed: Outcome(0.0, {"score": 0.0}, parameters=20), made.arms["own"].configurations
    )
    measure("coin", replace(made, arms={**made.arms, "larger": larger}), result, quick=True)
    assert [check.holds for check in result.checks] == [False] and "parameters" in result.checks[0].name


def test_arms_are_tuned_alike_and_compared_with_something_on_five_seeds():
    made, _ = component(0.5)
    for changes in (
        {"arms": {"own": made.arms["own"], "other": Arm(made.arms["other"].run, ({},))}},
        {"arms": {"own": made.arms["own"]}},
        {"seeds": 4},
    ):
        with pytest.raises(ConfigError):
            replace(made, **changes)


def test_an_interval_is_that_of_students_t():
    mean, low, high = interval([1.0, 2.0, 3.0])
    assert (mean, high - mean, mean - low) == pytest.approx((2.0, 4.302653 / 3**0.5, 4.302653 / 3**0.5))


def test_every_module_of_components_is_found_by_its_name():
    found = components()
    assert {"split_weights", "lifelong", "multitask"} <= set(found)
    assert not {"comparison", "ranking_worlds"} & set(found)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(components()))
def test_a_quick_run_of_a_component_tells_every_arm_in_world_and_twin(name):
    result, component = Result(), components()[name]
    try:
        measure(name, component, result, quick=True)
    except ResourceError as error:
        pytest.skip(str(error))
    told = {(row["place"], row["arm"]) for row in result.rows if {"place", "arm", "seeds"} <= set(row)}
    assert told == {(place, arm) for place in component.places for arm in component.arms}
