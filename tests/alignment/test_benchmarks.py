"""The room's benchmarks in their quick form, so that none rots."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from benchmarks.environments.figures import Chart, save
from benchmarks.environments.language import distance_to_front, hypervolume

ROOT = Path(__file__).parents[2]


@pytest.mark.integration
@pytest.mark.parametrize("name", ["pareto", "token_weights", "alignment_overhead"])
def test_quick_run_holds_its_checks(name, tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "TAIJI_TEST_DATA"}
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--quick", "--json", str(tmp_path / "out.json")],
        cwd=ROOT, env={**environment, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=600, check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["checks"] and all(check["holds"] for check in written["checks"]) and written["rows"]


def test_hypervolume_and_distance():
    points = np.array([[1.0, 0.2], [0.5, 0.8], [0.4, 0.4], [-1.0, 5.0]])
    assert hypervolume(points) == pytest.approx(1.0 * 0.2 + 0.5 * 0.6)
    assert hypervolume(points, (0.4, 0.1)) == pytest.approx(0.6 * 0.1 + 0.1 * 0.6)
    front = np.array([[1.0, 0.0], [0.0, 1.0], [0.2, -0.1]])
    assert distance_to_front(np.array([0.5, 0.5]), front) == 0.0
    assert distance_to_front(np.array([0.25, 0.25]), front) == pytest.approx(np.sqrt(2) / 4)
    assert distance_to_front(np.array([0.0, 0.0]), np.array([[3.0, 4.0]])) == pytest.approx(5.0)


def test_figures_are_svg_and_reproducible(tmp_path):
    chart = Chart("a < b", "x", "y", lines=[("one", np.arange(3), np.array([0.0, 2.0, 1.0]))], points=[("two", np.ones(2), np.ones(2))])
    for name in ("first.svg", "second.svg"):
        save(tmp_path / name, [chart, chart])
    import xml.etree.ElementTree as tree

    assert tree.parse(tmp_path / "first.svg").getroot().tag.endswith("svg")
    assert (tmp_path / "first.svg").read_bytes() == (tmp_path / "second.svg").read_bytes()
