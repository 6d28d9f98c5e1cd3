"""The speed benchmarks in their quick form, so that none rots."""

from __future__ import annotations

import numpy as np
import pytest
from tests.quick import run_quick


@pytest.mark.parametrize(
    "name",
    [
        "alignment_speed",
        pytest.param("scoring_speed", marks=pytest.mark.slow),
        pytest.param("feature_generation", marks=pytest.mark.slow),
        pytest.param("cost_growth", marks=pytest.mark.slow),
    ],
)
def test_quick_run_holds(name, tmp_path):
    # How fast a tiny model runs beside other tests says nothing; that both ways compute the same must hold anywhere.
    found = run_quick(name, tmp_path, must_hold=lambda check: "error" in check or "differ" in check)
    assert found["machine"]["cores"]


def test_measures():
    from benchmarks.cost_growth import slope
    from benchmarks.measuring import Rates, Sizes, peak_memory

    assert slope([1, 2, 4], [3, 12, 48]) == pytest.approx(2)
    grown = peak_memory(lambda: float(np.ones(20_000_000).sum()))[1]
    assert np.isnan(grown) or 140 < grown < 260, "160 MB"
    sizes, rate = Sizes(linear=100, head=10, attention=2), Rates(1e3, 1e3)
    assert sizes.update_floor(10, 2, 5, rate) == pytest.approx(2 * (200 * 20 + 20 * 10 + 2 * (50 + 10 * 12.5)) / 1e3)
    assert sizes.rollout_floor(10, 5, rate, 4) == pytest.approx((200 * 10 + 100) / 1e3 + 5 * 110 * 4 / 1e3)
