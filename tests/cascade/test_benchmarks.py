"""The package's benchmarks in their quick form, so that they do not rot."""

from __future__ import annotations

import pytest
from tests.quick import run_quick


@pytest.mark.slow
def test_quick_run_writes_every_check(tmp_path):
    # With 120 users of two worlds, what holds is the full benchmark's business.
    written = run_quick("recommend", tmp_path, must_hold=lambda check: False)
    assert len(written["checks"]) == 16


@pytest.mark.slow
def test_quick_run_of_features_in_lists_writes_every_check(tmp_path):
    written = run_quick("list_features", tmp_path, must_hold=lambda check: False)
    assert len(written["checks"]) == 3


@pytest.mark.slow
def test_quick_series_makes_lists_by_every_step(tmp_path):
    written = run_quick("fusion_series", tmp_path, must_hold=lambda check: False)
    arms = {row["arm"] for row in written["rows"]}
    assert len(arms) == 9 and {"fusion: monotone cells", "alignment by category", "re-ranking: MMR"} <= arms
    assert all(row["n"] > 50 and 0 <= row["value"] <= 1 for row in written["rows"])
