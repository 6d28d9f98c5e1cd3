"""The room's benchmarks in their quick form, so that none rots."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.environments.figures import Chart, save
from benchmarks.environments.language import distance_to_front
from tests.quick import run_quick


@pytest.mark.integration
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("pareto", marks=pytest.mark.slow),
        pytest.param("token_weights", marks=pytest.mark.slow),
        "alignment_overhead",
    ],
)
def test_quick_run_holds_its_checks(name, tmp_path):
    run_quick(name, tmp_path)


def test_distance():
    front = np.array([[1.0, 0.0], [0.0, 1.0], [0.2, -0.1]])
    assert distance_to_front(np.array([0.5, 0.5]), front) == 0.0
    assert distance_to_front(np.array([0.25, 0.25]), front) == pytest.approx(np.sqrt(2) / 4)
    assert distance_to_front(np.array([0.0, 0.0]), np.array([[3.0, 4.0]])) == pytest.approx(5.0)


def test_figures_are_svg_and_reproducible(tmp_path):
    chart = Chart(
        "a < b",
        "x",
        "y",
        lines=[("one", np.arange(3), np.array([0.0, 2.0, 1.0]))],
        points=[("two", np.ones(2), np.ones(2))],
    )
    for name in ("first.svg", "second.svg"):
        save(tmp_path / name, [chart, chart])
    import xml.etree.ElementTree as tree

    assert tree.parse(tmp_path / "first.svg").getroot().tag.endswith("svg")
    assert (tmp_path / "first.svg").read_bytes() == (tmp_path / "second.svg").read_bytes()
