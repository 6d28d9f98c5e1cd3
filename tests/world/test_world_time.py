"""Demand swings over the day and loses nothing."""

from __future__ import annotations

import numpy as np

from taiji.world.world_time import PEAK, demand, demand_until, to_days, to_micros, when


def test_felt_time_is_the_integral_of_demand_and_its_inverse_comes_back():
    days = np.linspace(0, 3, 3001)
    middle = (days[1:] + days[:-1]) / 2
    integral = np.concatenate([[0], np.cumsum(demand(middle, 0.6) * np.diff(days))])
    np.testing.assert_allclose(demand_until(days, 0.6), integral, atol=1e-6)
    np.testing.assert_allclose(when(demand_until(days, 0.6), 0.6), days, atol=2e-7)
    np.testing.assert_allclose(demand_until(np.array([1.0, 2.0]), 0.6), [1, 2], atol=1e-12)
    assert demand(np.array([PEAK]), 0.6) == 1.6


def test_days_and_microseconds():
    days = np.array([0.0, 0.25, 17.123456])
    np.testing.assert_allclose(to_days(to_micros(days)), days, atol=1e-11)
