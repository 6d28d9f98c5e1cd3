"""Every single file of a real run, damaged in every way: made again and equal byte for byte, or one error; never
skipped."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.damage import contents, damaged_copies

from taiji.config import load_config
from taiji.core.errors import TaijiError
from taiji.pipeline.engine import Run
from taiji.pipeline.recipes import stages_of

TIMED = {"metrics.json", "report.html", "report/metrics.json", "report/report.html"}
"""Hold the seconds each stage took, which no two runs share."""


def resume(run: Path) -> list[str]:
    """Go on with a run as `taiji run --resume` does; return what it said."""
    said: list[str] = []
    config = load_config(run / "config.json")
    Run(run, config, stages_of(config), say=said.append).execute()
    return said


@pytest.mark.slow
def test_damage_to_any_file_is_mended_or_said(small_config, tmp_path):
    run, config = tmp_path / "run", load_config(small_config)
    Run(run, config, stages_of(config), say=lambda text: None).execute()
    whole, outcomes = contents(run, TIMED), {"made again": 0, "one error": 0}
    for name, way, copy in damaged_copies(run, tmp_path / "copies"):
        try:
            said = resume(copy)
        except TaijiError as error:
            assert name == "config.json" and "what to do" in str(error), (name, way, error)
            outcomes["one error"] += 1
            continue
        if name == "config.json":  # it still is a configuration, and people may edit theirs: what differs is said
            same = contents(copy, {*TIMED, name}) == {file: content for file, content in whole.items() if file != name}
            assert same or any("settings changed: " in line for line in said), said
            continue
        assert any("running again: " in line or "written again" in line for line in said), (name, way, said)
        assert contents(copy, TIMED) == whole, (name, way)
        outcomes["made again"] += 1
    assert outcomes["one error"] >= 4 and outcomes["made again"] > 300, outcomes
