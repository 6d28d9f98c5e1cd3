"""A step's figures and rollouts, with the group they were compared in."""

from __future__ import annotations

import pytest

from taiji.core.manifests import write_manifest
from taiji.inspector.run_view import RunFiles
from taiji.inspector.steps import step_view


def test_the_nearest_step_with_its_neighbours_and_groups(run_folder):
    run = RunFiles(run_folder)
    assert step_view(run, run.metrics, None)["step"] == 1
    assert step_view(run, run.metrics, 10_000)["step"] == 25
    view = step_view(run, run.metrics, 7)
    assert (view["before"], view["step"], view["after"]) == (6, 7, 8)
    assert {row["name"] for row in view["rows"]} == {"semantic", "preference"}
    (group,) = view["groups"]
    assert len(group["rollouts"]) == 4 and group["asked"]["role"] == "alignment"
    weights = {row["name"]: row["weights"] for row in view["rows"]}
    for row in group["rollouts"]:
        assert row["sum"] == pytest.approx(
            sum(weights[name] * value for name, value in row["rewards"].items() if value is not None)
        )
    assert sum(row["above"] for row in group["rollouts"]) == pytest.approx(0, abs=1e-9)


def test_a_run_without_kept_rollouts_has_no_groups(run_folder, tmp_path):
    import shutil

    shutil.copytree(run_folder, tmp_path / "run")
    (tmp_path / "run" / "alignment" / "rollouts.parquet").unlink()
    write_manifest(tmp_path / "run" / "alignment", {"stage": "alignment", "seconds": 1.0, "facts": {}})
    run = RunFiles(tmp_path / "run")
    assert step_view(run, run.metrics, 3)["groups"] == []
