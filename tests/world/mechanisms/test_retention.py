"""Good lists keep users and bring them back; confounded users come back anyway."""

from __future__ import annotations

import numpy as np
import pytest
from tests.world.small import coin_surprise, small

from taiji.core.errors import ConfigError
from taiji.world.exposure import Exposure
from taiji.world.laws import logit, sigmoid
from taiji.world.mechanisms.retention import Retention
from taiji.world.observation import Choice
from taiji.world.outcomes import user_outcomes


def lists(pleased: np.ndarray) -> Exposure:
    exposure = Exposure(
        np.arange(len(pleased)),
        np.zeros(len(pleased), int),
        np.zeros(len(pleased)),
        0,
        np.zeros((len(pleased), 4), int),
    )
    exposure.outcome = {"view": np.ones((len(pleased), 4)), "click": np.zeros((len(pleased), 4)), "pleased": pleased}
    return exposure


def test_moods_and_what_they_say_are_those_of_the_formula():
    world = small("retention")
    retention, s = world.find(Retention), world.find(Retention).settings
    pleased = np.array([[0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1.0]])
    exposure = lists(pleased)
    retention.settle(exposure)
    good = np.clip((pleased.mean(axis=1) - s.centre) / s.scale, -2, 2)
    np.testing.assert_allclose(retention.mood[:3], (1 - s.fading) * good)
    np.testing.assert_allclose(exposure.row_terms["leave"], -s.stay * retention.mood[:3])
    expected = -s.back * retention.mood[:3] - s.confounded * retention.eager[:3]
    np.testing.assert_allclose(exposure.row_terms["delay"], expected)
    again = lists(pleased)
    retention.settle(again)
    np.testing.assert_allclose(retention.mood[:3], (1 - s.fading**2) * good)


def test_an_outcome_that_does_not_exist_is_an_error():
    world = small("retention")
    settings = world.scenario.model_dump()["mechanisms"]
    settings["retention"]["outcome"] = "happy"
    other = type(world)(world.scenario, mechanisms=settings)
    with pytest.raises(ConfigError, match="pleased"):
        other.step(Choice(other.observation.candidates.items))


def test_a_better_policy_keeps_users_unless_it_makes_no_difference():
    for twin, differ in (("retention.confounding", True), ("retention", False)):
        world = small("retention", users=150, candidates=30).twin(twin)
        bad, good = (user_outcomes(world, policy, 2)["requests"].sum() for policy in ("random", "oracle"))
        assert (good > 1.15 * bad) if differ else good == pytest.approx(bad, rel=0.05)


def test_who_leaves_and_for_how_long_follows_the_moods():
    """10^4 requests: leaving is a coin with the stated logit, and the time away exponential around the stated mean."""
    world = small("retention", users=12_000, joining=0.0, visits=40.0, activity=0.0, diurnal=0.0, candidates=6)
    retention, s = world.find(Retention), world.scenario
    retention.mood[:] = np.linspace(-1, 1, 12_000)
    observation = world.observation
    assert len(observation) > 10_000
    exposure = world.step(Choice(observation.candidates.items))
    chance = sigmoid(logit(1 / s.requests) + exposure.row_terms["leave"])
    left = exposure.context["left"]
    assert coin_surprise(left, chance) < 4 and chance.std() > 0.05
    gone = exposure.user[left]
    watched = exposure.outcome["watch"].sum(axis=1)[left]
    away = (world.due[gone] - exposure.time[left] - watched / 86_400) * s.visits
    expected = np.exp(exposure.row_terms["delay"][left])
    short = s.pause / 86_400 * s.visits
    assert abs((away / expected).mean() - 1) < 4 / np.sqrt(len(gone)) + short * 2
