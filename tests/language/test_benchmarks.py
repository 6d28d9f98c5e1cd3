"""The speed benchmarks in their quick form, so that none rots."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["alignment_speed", "scoring_speed", "cost_growth"])
def test_quick_run_holds(name, tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--quick", "--json", str(tmp_path / "out.json")],
        cwd=ROOT, capture_output=True, text=True, timeout=600, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert run.returncode in (0, 1), run.stdout + run.stderr
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["rows"] and found["machine"]["cores"]
    # How fast a tiny model runs beside other tests says nothing; that both ways compute the same must hold anywhere.
    assert all(check["holds"] for check in found["checks"] if "error" in check["name"] or "differ" in check["name"])


def test_measures():
    from benchmarks.cost_growth import slope
    from benchmarks.measuring import Rates, Sizes, peak_memory

    assert slope([1, 2, 4], [3, 12, 48]) == pytest.approx(2)
    grown = peak_memory(lambda: float(np.ones(20_000_000).sum()))[1]
    assert np.isnan(grown) or 140 < grown < 260, "160 MB"
    sizes, rate = Sizes(linear=100, head=10, attention=2), Rates(1e3, 1e3)
    assert sizes.update_floor(10, 2, 5, rate) == pytest.approx(2 * (200 * 20 + 20 * 10 + 2 * (50 + 10 * 12.5)) / 1e3)
    assert sizes.rollout_floor(10, 5, rate, 4) == pytest.approx((200 * 10 + 100) / 1e3 + 5 * 110 * 4 / 1e3)
