"""The room's benchmark in its quick form, so that it does not rot."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.abtest import over_seeds
from tests.quick import run_quick


@pytest.mark.slow
def test_quick_run_holds_its_checks(tmp_path):
    # One seed of the null twin may differ from zero by chance; over seeds it is the full benchmark's business.
    written = run_quick(
        "abtest", tmp_path, must_hold=lambda check: not check.startswith("null twin: distance"), public_data=True
    )
    assert len(written["checks"]) >= 10


def test_the_mean_over_seeds_has_students_interval():
    low, high = over_seeds([(v, 0.0, 0.0) for v in (1.0, 2.0, 3.0, 4.0, 5.0)])
    assert (low, high) == pytest.approx((3 - 2.776 * np.sqrt(2.5 / 5), 3 + 2.776 * np.sqrt(2.5 / 5)))
    assert over_seeds([(1.0, 0.5, 1.5)]) == (0.5, 1.5)


@pytest.mark.integration
def test_quick_study_goes_on_and_its_controls_do_not_gain(tmp_path):
    written = run_quick("study", tmp_path)
    assert len(written["checks"]) == 4


@pytest.mark.integration
def test_quick_text_features_judges_every_way_of_using_them(tmp_path):
    written = run_quick("text_features", tmp_path)
    parts = {(row["part"], row["features"]) for row in written["rows"]}
    assert len([p for p in parts if p[0] == "ladder"]) == 10 and len([p for p in parts if p[0] == "ways"]) == 11
