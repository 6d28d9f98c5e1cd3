"""Good lists keep users and bring them back; confounded users come back anyway."""

from __future__ import annotations

import numpy as np
import pytest
from tests.world.small import small

from taiji.world.exposure import Exposure
from taiji.world.mechanisms.retention import Retention
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


def test_a_better_policy_keeps_users_unless_it_makes_no_difference():
    for twin, differ in (("retention.confounding", True), ("retention", False)):
        world = small("retention", users=150, candidates=30).twin(twin)
        bad, good = (user_outcomes(world, policy, 2)["requests"].sum() for policy in ("random", "oracle"))
        assert (good > 1.15 * bad) if differ else good == pytest.approx(bad, rel=0.05)
